"""openpi's client names: WebsocketClientPolicy over a real socket, and ActionChunkBroker."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

from policyserve import Server
from policyserve.compat.openpi import ActionChunkBroker, BasePolicy, WebsocketClientPolicy, WebsocketPolicyServer
from policyserve.core.errors import ConfigError, ConnectionLost, DeadlineExceeded
from policyserve.policies.fakes import EchoPolicy, FailingPolicy, SlowPolicy
from tests.compat.running import running
from tests.plain_servers import plain_server
from tests.server.live import DEADLINE_S, serving


def server_of(policy: Any, **options: Any) -> Server:
    return WebsocketPolicyServer(policy, "127.0.0.1", 0, **options)


def test_it_reads_the_metadata_when_it_is_made_and_asks_for_actions() -> None:
    with running(server_of(EchoPolicy(), metadata={"robot": "arm"})) as url:
        policy = WebsocketClientPolicy(url)
        assert policy.get_server_metadata()["robot"] == "arm"
        assert policy.metadata == policy.get_server_metadata()
        answer = policy.infer({"obs": np.arange(4, dtype=np.float32)})
        assert type(answer) is dict
        assert answer["actions"].tolist() == [0, 1, 2, 3]
        assert "prev_total_ms" not in answer["server_timing"]
        assert "prev_total_ms" in policy.infer({"obs": np.zeros(4, np.float32)})["server_timing"]
        policy.close()


@pytest.mark.parametrize("scheme", ["", "ws://"])
def test_a_host_goes_with_or_without_its_scheme(scheme: str) -> None:
    with running(server_of(EchoPolicy())) as url:
        host, port = url.removeprefix("ws://").split(":")
        policy = WebsocketClientPolicy(f"{scheme}{host}", int(port), api_key="secret")
        assert policy.infer({"obs": np.zeros(4, np.float32)})["actions"].shape == (4,)
        policy.close()


def test_a_host_without_a_port_may_name_it_itself() -> None:
    with running(server_of(EchoPolicy())) as url:
        policy = WebsocketClientPolicy(url.removeprefix("ws://"), None)
        assert policy.get_server_metadata()["policyserve"]
        policy.close()


def test_a_refusal_is_a_runtime_error_and_the_connection_goes_on() -> None:
    with running(server_of(EchoPolicy())) as url:
        policy = WebsocketClientPolicy(url)
        with pytest.raises(RuntimeError, match=r"bad_observation: obs: expected float32 \(4,\)"):
            policy.infer({"obs": np.zeros(5, np.float32)})
        answer = policy.infer({"obs": np.zeros(4, np.float32)})
        assert "prev_total_ms" not in answer["server_timing"], "the same session, its first answer"
        policy.close()


def test_a_failing_policy_is_a_runtime_error_too() -> None:
    with running(server_of(FailingPolicy())) as url:
        policy = WebsocketClientPolicy(url)
        with pytest.raises(RuntimeError, match="policy_failed"):
            policy.infer({"obs": np.zeros(4, np.float32)})
        policy.close()


def test_reset_changes_nothing() -> None:
    with running(server_of(EchoPolicy())) as url:
        policy = WebsocketClientPolicy(url)
        policy.infer({"obs": np.zeros(4, np.float32)})
        policy.reset()
        answer = policy.infer({"obs": np.zeros(4, np.float32)})
        assert "prev_total_ms" in answer["server_timing"], "the same session"
        policy.close()


class Waits(logging.Handler):
    """Notes what a client that waits says; `waited` is set when it has looked for its server in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.waited = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())
        if "still waiting" in record.getMessage():
            assert record.levelno == logging.INFO
            self.waited.set()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    log, handler = logging.getLogger("policyserve.compat.asking"), Waits()
    monkeypatch.setattr(log, "level", logging.INFO)
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


@contextmanager
def made_meanwhile(url: str, **options: Any) -> Iterator[Future[WebsocketClientPolicy]]:
    """A policy that is being made in a thread of its own."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(WebsocketClientPolicy, url, **options)


def test_it_waits_for_a_server_that_is_not_there_yet(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.compat.asking.PAUSE_S", 0.01)
    with running(server_of(EchoPolicy())) as url:
        port = int(url.rpartition(":")[2])
    with made_meanwhile(url) as making:
        assert waits.waited.wait(DEADLINE_S)
        with running(WebsocketPolicyServer(EchoPolicy(), "127.0.0.1", port)):
            policy = making.result(DEADLINE_S)
            assert policy.infer({"obs": np.ones(4, np.float32)})["actions"].tolist() == [1, 1, 1, 1]
            policy.close()
    assert waits.told[0] == f"waiting for the server at {url}/openpi"
    assert "refused" in waits.told[1]


def test_it_waits_for_a_server_that_is_full(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.compat.asking.PAUSE_S", 0.01)

    def gate(peer: ServerConnection, request: Request) -> Response | None:
        if waits.waited.is_set():
            return None
        return peer.respond(HTTPStatus.SERVICE_UNAVAILABLE, "256 sessions are open\n")

    def greet(peer: ServerConnection) -> None:
        peer.send(msgpack.packb({"robot": "arm"}) or b"")
        list(peer)

    with plain_server(greet, process_request=gate) as port:
        policy = WebsocketClientPolicy("127.0.0.1", port)
        assert policy.get_server_metadata() == {"robot": "arm"}
        policy.close()
    assert "256 sessions are open" in waits.told[1]


def test_it_waits_for_a_policy_that_loads_longer_than_an_answer_may_take(
    waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policyserve.compat.asking.PAUSE_S", 0.01)
    release = threading.Event()

    def load(_: Any) -> Any:
        assert release.wait(DEADLINE_S)
        return EchoPolicy()

    with serving(load=load) as live, made_meanwhile(f"ws://127.0.0.1:{live.port}", timeout_s=0.3) as making:
        assert waits.waited.wait(DEADLINE_S)
        assert "may still be loading" in waits.told[1]
        release.set()
        making.result(DEADLINE_S).close()


def test_ctrl_c_ends_the_wait(waits: Waits) -> None:
    with running(server_of(EchoPolicy())) as url:
        pass

    def interrupt() -> None:
        assert waits.waited.wait(DEADLINE_S)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with ThreadPoolExecutor(1) as threads:
        interrupting = threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            WebsocketClientPolicy(url)
        interrupting.result()


def test_what_no_waiting_heals_is_told_at_once() -> None:
    def not_found(peer: ServerConnection, request: Request) -> Response:
        return peer.respond(HTTPStatus.NOT_FOUND, "no such page\n")

    with plain_server(lambda peer: None, process_request=not_found) as port, pytest.raises(ConnectionLost, match="404"):
        WebsocketClientPolicy("127.0.0.1", port)


def test_a_refused_key_is_told_at_once() -> None:
    def refuse(peer: ServerConnection, request: Request) -> Response:
        return peer.respond(HTTPStatus.UNAUTHORIZED, "no such key\n")

    with plain_server(lambda peer: None, process_request=refuse) as port, pytest.raises(RuntimeError, match="API key"):
        WebsocketClientPolicy("127.0.0.1", port, api_key="wrong")


def test_a_connection_that_is_lost_later_is_told_and_not_waited_for() -> None:
    with running(server_of(EchoPolicy())) as url:
        policy = WebsocketClientPolicy(url)
    with pytest.raises(ConnectionLost):
        policy.infer({"obs": np.zeros(4, np.float32)})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"host": ""}, "host: expected a name, an address or a ws:// URL, got ''"),
        ({"host": " "}, "host: expected a name"),
        ({"host": None}, "host: expected a name.* got None"),
        ({"host": "localhost", "port": 0}, "port: expected 1 … 65535, or None, got 0"),
        ({"host": "localhost", "port": 65536}, "port: expected"),
        ({"host": "localhost", "port": True}, "port: expected"),
        ({"host": "localhost", "port": "http"}, "port: expected.* got 'http'"),
        ({"host": "localhost", "port": 80.5}, "port: expected"),
        ({"api_key": ""}, "api_key: expected a key"),
        ({"timeout_s": 0}, "timeout_s: expected seconds"),
        ({"host": "http://localhost"}, "url: expected ws://"),
    ],
)
def test_an_argument_that_is_wrong_is_refused_by_name_before_any_wait(arguments: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        WebsocketClientPolicy(**arguments)


def test_nan_is_handed_on_as_the_original_does() -> None:
    def greet_and_answer(peer: ServerConnection) -> None:
        peer.send(msgpack.packb({}) or b"")
        for _ in peer:
            peer.send(msgpack.packb({"actions": [float("nan")]}) or b"")

    with plain_server(greet_and_answer) as port:
        policy = WebsocketClientPolicy("127.0.0.1", port)
        (answer,) = policy.infer({"obs": np.zeros(4, np.float32)})["actions"]
        assert np.isnan(answer)
        policy.close()


def test_a_time_limit_may_be_given() -> None:
    slow = SlowPolicy()
    with running(server_of(slow)) as url:
        policy = WebsocketClientPolicy(url, timeout_s=1.0)
        with pytest.raises(DeadlineExceeded):
            policy.infer({"obs": np.zeros(4, np.float32)})
        slow.release.set()
        policy.close()


def test_a_robot_that_asks_loads_no_server_and_no_command_line() -> None:
    program = (
        "import sys\n"
        "from policyserve.compat.openpi import ActionChunkBroker, WebsocketClientPolicy\n"
        "from policyserve.compat.wall_x import WallXClient\n"
        "WallXClient()\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('policyserve', 'tyro', 'h11', 'PIL'))))\n"
    )
    loaded = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True).stdout.split()
    rooms = ("core", "dialects", "transforms", "websocket", "client", "compat")
    allowed = tuple(f"policyserve.{room}" for room in rooms)
    assert [name for name in loaded if not name.startswith(allowed)] == ["policyserve"]


class Chunks(BasePolicy):
    """Answers chunks of three steps, the first beginning at 0, the next at 10, …"""

    def __init__(self) -> None:
        self.asked = 0
        self.resets = 0

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        steps = np.arange(3) + 10 * self.asked
        self.asked += 1
        return {
            "actions": np.stack([steps, -steps], axis=1),
            "nested": {"gripper": steps * 2, "list": [steps, "left"]},
            "server_timing": {"infer_ms": 1.5},
            "scalar": np.array(7),
        }

    def reset(self) -> None:
        self.resets += 1


def test_a_broker_hands_a_chunk_out_step_by_step_and_then_asks_again() -> None:
    policy = Chunks()
    broker = ActionChunkBroker(policy, 3)
    steps = [broker.infer({})["actions"].tolist() for _ in range(4)]
    assert steps == [[0, 0], [1, -1], [2, -2], [10, -10]]
    assert policy.asked == 2


def test_a_broker_asks_again_before_the_chunk_ends_if_its_horizon_is_shorter() -> None:
    broker = ActionChunkBroker(Chunks(), 2)
    assert [broker.infer({})["actions"][0] for _ in range(3)] == [0, 1, 10]


def test_a_broker_slices_nested_arrays_and_passes_everything_else_on() -> None:
    broker = ActionChunkBroker(Chunks(), 3)
    broker.infer({})
    step = broker.infer({})
    assert step["nested"] == {"gripper": 2, "list": [1, "left"]}
    assert step["server_timing"] == {"infer_ms": 1.5}
    assert step["scalar"] == 7


def test_a_broker_whose_chunk_is_shorter_than_its_horizon_says_so() -> None:
    broker = ActionChunkBroker(Chunks(), 4)
    for _ in range(3):
        broker.infer({})
    with pytest.raises(IndexError):
        broker.infer({})


def test_resetting_a_broker_drops_its_chunk_and_resets_its_policy() -> None:
    policy = Chunks()
    broker = ActionChunkBroker(policy, 3)
    broker.infer({})
    broker.reset()
    assert policy.resets == 1
    assert broker.infer({})["actions"].tolist() == [10, -10]


def test_a_broker_over_a_served_policy_asks_once_per_chunk() -> None:
    served = Chunks()
    with running(server_of(served)) as url:
        remote = WebsocketClientPolicy(url)
        broker = ActionChunkBroker(remote, 3)
        assert [broker.infer({"state": 1})["actions"].tolist() for _ in range(3)] == [[0, 0], [1, -1], [2, -2]]
        remote.close()
    assert served.asked == 1
