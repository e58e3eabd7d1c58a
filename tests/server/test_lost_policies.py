"""Policies that die or hang under a serving server: sessions stay, others go on, and everybody is told the truth."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from policyserve.client.sync import Client
from policyserve.core.errors import ConfigError, RemoteError
from policyserve.dialects import by_name
from policyserve.server.config import ServerConfig
from policyserve.server.policy_server import PolicyServer
from tests.engine.running import mark, recipe
from tests.server.live import DEADLINE_S, Live, frame, serving

X = np.array([1], np.float32)


def client(live: Live, dialect: str = "openpi") -> Client:
    return Client(f"ws://127.0.0.1:{live.port}", dialect=dialect)


def is_ready(live: Live) -> tuple[int, Any]:
    status, body, _ = live.http("GET", "/readyz")
    return status, json.loads(body)


def test_a_policys_process_is_killed_under_load_and_no_openpi_session_notices_more_than_an_error(
    tmp_path: Path,
) -> None:
    answered = threading.Barrier(5)

    def drive(number: int, told: list[str]) -> None:
        with client(live) as one:
            before = one.metadata
            sent = 0
            while sent < 50 or not (tmp_path / "crashed").exists() or len(told) == 0:
                sent += 1
                x = np.array([1000 * number + sent], np.float32)
                do = "crash_once" if sent == 20 and number == 0 else "echo"
                try:
                    assert one.infer({"x": x, "do": do}).actions == x
                except RemoteError as error:
                    told.append(str(error))
            assert one.infer({"x": X}).actions == X
            assert one.metadata is before  # it never connected anew
        answered.wait(DEADLINE_S)

    with serving(load=recipe(marks=tmp_path), isolate="process") as live:
        live.ready()
        told: list[str] = []
        drivers = [threading.Thread(target=drive, args=(number, told)) for number in range(4)]
        for driver in drivers:
            driver.start()
        answered.wait(DEADLINE_S)
        for driver in drivers:
            driver.join()
        assert 1 <= len(told) <= 4  # those whose requests ran when it died
        assert all("policy_lost: the policy was lost at this request: its process" in one for one in told)
        assert all("SIGKILL" in one for one in told)
        live.until(lambda server: server.counters.sessions_opened == 4)


def test_a_vibe_rl_client_is_closed_with_1013(tmp_path: Path) -> None:
    policy = recipe("load_vibe_rl", marks=tmp_path)
    with serving(load=policy, isolate="process") as live:
        live.ready()
        with live.websocket() as peer:
            peer.send(frame([float(signal.SIGKILL)]))
            with pytest.raises(ConnectionClosed) as caught:
                peer.recv(timeout=DEADLINE_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1013
        with live.websocket() as peer:  # it waits for the new process
            peer.send(frame([0.0]))
            assert peer.recv(timeout=DEADLINE_S)


def test_readyz_says_that_the_policy_is_restarted(tmp_path: Path) -> None:
    with serving(load=recipe("load_once", marks=tmp_path), isolate="process") as live:
        live.ready()
        assert is_ready(live)[0] == 200
        with client(live) as one:
            with pytest.raises(RemoteError, match="policy_lost"):
                one.infer({"x": np.array([6], np.float32), "do": "fail"})
            assert is_ready(live) == (503, {"status": "loading", "stage": "restarting the policy"})
            assert live.http("GET", "/healthz")[0] == 200
            (tmp_path / "heal").touch()
            assert one.infer({"x": X}).actions == X
        assert is_ready(live)[0] == 200


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_a_policy_that_hangs_costs_its_request_and_a_replacement(isolate: str, tmp_path: Path) -> None:
    with serving(load=recipe(marks=tmp_path), isolate=isolate, request_timeout_s=1.5) as live:
        live.ready()
        with client(live) as hanging, client(live) as other:
            with pytest.raises(RemoteError, match=r"deadline_exceeded: no answer within 1\.5 s"):
                hanging.infer({"x": X, "do": "wait"})
            (tmp_path / "go").touch()
            live.until(lambda server: not (server.reception.stage or server.engine.stage))
            for one in (other, hanging):
                assert one.infer({"x": X}).actions == X


def test_pings_and_health_are_answered_while_the_policy_holds_the_interpreter(tmp_path: Path) -> None:
    with serving(load=recipe(marks=tmp_path), isolate="process", drain_s=0.0) as live:
        live.ready()
        with live.websocket("/openpi") as peer, live.websocket("/openpi") as other:
            for one in (peer, other):
                one.recv(timeout=DEADLINE_S)
            peer.send(by_name("openpi").write_request({"x": X, "do": "hold"}))
            asyncio.run(mark(tmp_path, "waiting"))
            for _ in range(20):
                assert live.http("GET", "/healthz")[0] == 200
                assert peer.ping().wait(DEADLINE_S)
                assert other.ping().wait(DEADLINE_S)


def test_two_replicas_serve_and_stay_ready_when_one_dies(tmp_path: Path) -> None:
    with serving(load=recipe("load_once", marks=tmp_path), isolate="process", replicas=2) as live:
        (tmp_path / "heal").touch()
        live.ready()
        (tmp_path / "heal").unlink()
        with client(live) as one, client(live) as other:
            with pytest.raises(RemoteError, match="policy_lost"):
                one.infer({"x": np.array([signal.SIGKILL], np.float32), "do": "die"})
            assert is_ready(live)[0] == 200
            for robot in (one, other):
                assert robot.infer({"x": X}).actions == X


def test_a_policy_object_cannot_go_to_a_process_and_the_error_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"policyserve serve package.module:name"):
        PolicyServer(lambda x: x, config=ServerConfig(isolate="process"))
    with pytest.raises(ConfigError, match=r"Recipe\('package.module:function'\)"):
        PolicyServer(lambda x: x, config=ServerConfig(replicas=2))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"isolate": "ray"}, "isolate: expected thread or process, got 'ray'"),
        ({"replicas": 0}, "replicas: expected 1 or more, got 0"),
        (
            {"isolate": "process", "replicas": 3, "devices": "cuda:0,cuda:1"},
            r"devices: expected as many as replicas \(3\), by commas, got 'cuda:0,cuda:1'",
        ),
        ({"devices": "cuda:0"}, "devices: expected none, or isolate=process too"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{text}"):
        ServerConfig(**settings)
