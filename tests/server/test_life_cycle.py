"""Starting, stopping, and what the constructor takes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import policyserve
from policyserve.compat import vibe_rl
from policyserve.core.errors import ConfigError
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import PolicySpec
from policyserve.server.config import ServerConfig
from policyserve.server.policy_server import PolicyServer
from policyserve.server.server import Server
from tests.server.live import DEADLINE_S, always, answer, ask, chosen_runner, frame, making, serving
from tests.server.test_conversation import HandEngine


def close_of(peer: Any) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        peer.recv(timeout=DEADLINE_S)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def gate(started: threading.Event, release: threading.Event) -> Any:
    def wait(x: Any) -> Any:
        started.set()
        assert release.wait(DEADLINE_S)
        return x

    return wait


# Stopping


def test_a_stopping_server_answers_what_is_in_flight_then_closes_1001() -> None:
    started, release = threading.Event(), threading.Event()
    with serving(gate(started, release)) as live:
        with live.websocket() as busy, live.websocket() as idle:
            for number in range(3):
                busy.send(frame([number]))
            live.until(lambda server: server.engine.load == 3)
            live.stop()
            assert close_of(idle) == (1001, "the server is stopping")
            with pytest.raises(OSError, match="refused"):
                live.tcp()
            busy.send(frame([9.0]))  # comes too late: it is not answered
            release.set()
            assert [answer(busy.recv(timeout=DEADLINE_S)) for _ in range(3)] == [0, 1, 2]
            assert close_of(busy) == (1001, "the server is stopping")
        live.join()


def test_a_stopping_server_waits_no_longer_than_it_was_told() -> None:
    started, release = threading.Event(), threading.Event()
    with serving(gate(started, release), drain_s=0.05) as live:
        with live.websocket() as busy:
            busy.send(frame([1.0]))
            assert started.wait(DEADLINE_S)
            live.stop()
            assert close_of(busy)[0] == 1001
        release.set()
        live.join()


def test_health_probes_leave_no_gaps_in_the_numbers_of_sessions(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), serving() as live:
        for number in (1, 2):
            with live.tcp() as probe:
                probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert probe.recv(1000).startswith(b"HTTP/1.1 200")
            with live.websocket() as peer:
                assert ask(peer, 1.0) == 1.0
            live.until(lambda _, number=number: f"session {number} closed" in caplog.text)
    assert [number for number in range(10) if f"session {number} opened" in caplog.text] == [1, 2]


def test_connections_that_are_no_session_end_with_the_server() -> None:
    with serving() as live:
        idle = live.tcp()
        half = live.tcp()
        half.sendall(b"GET /hea")
        assert live.answers()
        live.stop()
        live.join()
        for peer in (idle, half):
            assert peer.recv(1000) == b""
            peer.close()


def test_a_server_that_still_loads_stops() -> None:
    release = threading.Event()

    def load(_: Any) -> Any:
        release.wait(DEADLINE_S)
        raise ConfigError("too late")

    with serving(load=load) as live:
        with live.websocket() as early:
            early.send(frame([1.0]))
            assert early.ping().wait(DEADLINE_S)
            live.stop()
            assert close_of(early) == (1001, "the server is stopping")
        release.set()
        live.join()


PROGRAM = """
import sys, policyserve
config = policyserve.ServerConfig(host="127.0.0.1", port=0, isolate=sys.argv[1])
server = policyserve.Server(policyserve.Recipe("tests.contract.policies:patient"), config)
import asyncio
async def main():
    await server.run(on_ready=lambda spec: print(server.address[1], flush=True))
asyncio.run(main())
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_without_a_traceback(number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, chosen_runner()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        port = int(program.stdout.readline())

        async def talk() -> int:
            async with connect(f"ws://127.0.0.1:{port}/vibe_rl") as peer:
                await peer.send(frame([1.0]))
                assert answer(await peer.recv()) == 1.0
                os.kill(program.pid, number)
                await asyncio.wait_for(peer.wait_closed(), DEADLINE_S)
                assert peer.protocol.close_code is not None
                return peer.protocol.close_code

        assert asyncio.run(talk()) == 1001
        assert program.wait(DEADLINE_S) == 0
        assert program.stdout.read() == b"ended\n"
        assert program.stderr.read() == b""


# Starting


def test_policies_run_where_the_tests_are_told_to_run_them() -> None:
    with serving(load=policyserve.Recipe("tests.contract.policies:whereabouts")) as live, live.websocket() as peer:
        assert (ask(peer, 0.0) == os.getpid()) == (chosen_runner() == "thread")
    with serving() as live:
        assert live.server.config.isolate == chosen_runner()
        assert live.answers()


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use by another program: take another"):
            asyncio.run(PolicyServer(lambda x: x, "127.0.0.1", port).run())


@pytest.mark.parametrize("host", ["256.0.0.1", "no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_named(host: str) -> None:
    with pytest.raises(ConfigError, match=host):
        asyncio.run(PolicyServer(lambda x: x, host, 0).run())


def test_run_raises_what_loading_raised() -> None:
    def load(_: Any) -> Any:
        raise ConfigError("no checkpoint")

    with making(load) as server, pytest.raises(ConfigError, match="no checkpoint"):
        asyncio.run(server.run())


def test_run_ends_at_stop_and_tells_when_it_is_ready() -> None:
    seen: list[PolicySpec] = []
    with making(always(lambda x: x)) as server:

        def ready(spec: PolicySpec) -> None:
            seen.append(spec)
            server.stop()

        asyncio.run(asyncio.wait_for(server.run(on_ready=ready), DEADLINE_S))
    assert len(seen) == 1


def test_a_second_stop_ends_the_drain() -> None:
    started, release = threading.Event(), threading.Event()

    async def main(server: Server) -> None:
        running = asyncio.ensure_future(server.run())
        await asyncio.sleep(0)
        while not server.reception.conversations:
            await asyncio.sleep(0.01)
            if not server._numbers:  # pyright: ignore[reportPrivateUsage]
                peer = await connect(f"ws://127.0.0.1:{server.address[1]}/vibe_rl")
                await peer.send(frame([1.0]))
        await asyncio.to_thread(started.wait, DEADLINE_S)
        server.stop()
        await asyncio.sleep(0)
        server.stop()
        await asyncio.wait_for(running, DEADLINE_S)
        release.set()

    with making(always(gate(started, release)), drain_s=1_000) as server:
        asyncio.run(main(server))


def test_the_context_manager_serves_any_kind_of_policy_on_a_free_port() -> None:
    class Object:
        def infer(self, observation: Any) -> Any:
            return {"actions": observation * 2}

    async def main(policy: Any) -> float:
        async with PolicyServer(policy, "127.0.0.1", port=0) as server:
            host, port = server.address
            await server.ready()
            assert server.address.url == f"ws://{host}:{port}"
            async with connect(f"{server.address.url}/vibe_rl") as peer:
                await peer.send(frame([4.0]))
                got = answer(await peer.recv())
            assert isinstance(server, PolicyServer)
            assert server._request_count == 1  # pyright: ignore[reportPrivateUsage]
            assert server._total_latency_ms > 0  # pyright: ignore[reportPrivateUsage]
            with pytest.raises(AttributeError):
                server._request_count = 2  # type: ignore[misc]  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
            return got

    assert asyncio.run(main(Object())) == 8.0
    assert asyncio.run(main(lambda x: x + 1)) == 5.0


def test_an_address_before_the_start_is_an_error() -> None:
    with pytest.raises(ConfigError, match="start it first"):
        _ = PolicyServer(lambda x: x).address


def test_a_server_says_where_it_listens_and_how_far_it_is() -> None:
    release = threading.Event()

    def load(on_stage: Any) -> Any:
        on_stage("reading the weights")
        assert release.wait(DEADLINE_S)
        return FunctionPolicy(lambda x: x, PolicySpec("arm\n", None, None))

    async def main() -> list[str]:
        server, loads = Server(load, ServerConfig(host="127.0.0.1", port=0)), asyncio.Event()
        server.on_stage = lambda _: loads.set()
        shown = [repr(server)]
        async with server:
            await loads.wait()
            shown.append(repr(server))
            release.set()
            await server.ready()
            async with policyserve.AsyncClient(server.address.url):
                shown.append(repr(server))
        return [text.replace(server.address.url, "URL") for text in (*shown, repr(server))]

    assert asyncio.run(main()) == [
        "<policyserve.Server not started>",
        "<policyserve.Server URL reading the weights>",
        "<policyserve.Server URL serving arm\\n, 1 session>",
        "<policyserve.Server URL stopped>",
    ]


def test_the_policys_close_is_called_at_the_end() -> None:
    closed = threading.Event()

    class Closing:
        spec = policyserve.PolicySpec("closing", None, None)

        def infer(self, batch: Any) -> Any:
            return [policyserve.ActionChunk(np.zeros(1)) for _ in batch]

        def close(self) -> None:
            closed.set()

    with serving(Closing()) as live, live.websocket() as peer:
        assert ask(peer, 1.0) == 0.0
        assert not closed.is_set()
    assert closed.is_set()


class Patience(HandEngine):
    """An engine with something in flight for ever, or nothing; it keeps how long it may take to close."""

    def __init__(self, hangs: bool) -> None:
        super().__init__()
        self.hangs = hangs

    async def drained(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    async def close(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s


def test_a_policy_that_used_up_the_drain_gets_little_more_time_to_close() -> None:
    async def patience_with(hangs: bool) -> float:
        engine = Patience(hangs)
        async with Server(engine, ServerConfig(host="127.0.0.1", port=0, drain_s=0.01)) as server:
            await server.ready()
        return engine.timeout_s

    given, given_if_it_hangs = (asyncio.run(patience_with(hangs)) for hangs in (False, True))
    assert given_if_it_hangs < 1 < given


# Settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1),
        ("port", 65_536),
        ("dialect", "klingon"),
        ("drain_s", -1.0),
        ("request_timeout_s", 0.0),
        ("max_frame_mib", 0.0),
        ("max_sessions", 0),
        ("max_pending", 0),
        ("max_queue", 0),
        ("max_queue_ms", -1.0),
        ("max_sessions_per_address", 0),
        ("max_handshakes", 0),
        ("max_head_kib", 0.5),
        ("max_depth", 65),
        ("max_items", 0),
        ("max_arrays", 0),
        ("max_image_side", 0),
        ("max_image_mpixels", 0.0),
        ("max_text", 0),
        ("max_buffered_mib", 63.0),
        ("max_unread_mib", 0.0),
        ("message_timeout_s", 0.0),
        ("unread_timeout_s", 0.0),
        ("idle_timeout_s", 0.0),
        ("handshake_timeout_s", -1.0),
        ("ping_interval_s", 0.0),
        ("ping_timeout_s", 0.0),
        ("first_frame_timeout_s", 0.0),
        ("hello_grace_ms", -1.0),
        ("drain_s", float("nan")),
        ("request_timeout_s", float("nan")),
    ],
)
def test_a_setting_out_of_bounds_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{field}: expected .* got {value!r}"):
        ServerConfig(**{field: value})


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, ("0.0.0.0", 8000)),
        ({"config": ServerConfig(host="127.0.0.1", port=9123)}, ("127.0.0.1", 9123)),
        ({"config": ServerConfig(host="127.0.0.1", port=9123), "port": 0}, ("127.0.0.1", 0)),
        ({"config": ServerConfig(host="127.0.0.1", port=9123), "host": "::1"}, ("::1", 9123)),
        ({"host": "::1", "port": 1}, ("::1", 1)),
    ],
)
def test_a_policy_server_listens_where_its_config_says_unless_told_otherwise(
    given: dict[str, Any], place: tuple[str, int]
) -> None:
    """A policy that somebody bound to loopback must not be open to the network."""
    for kind in (PolicyServer, vibe_rl.PolicyServer):
        server = kind(lambda x: x, **given)
        assert (server.config.host, server.config.port) == place


def test_run_blocking_in_a_running_loop_says_what_to_write_there() -> None:
    async def main() -> None:
        cures = r"`await server\.run\(\)` serves in it, policyserve\.start\(policy\) in a thread of its own"
        with pytest.raises(ConfigError, match=f"inside a running event loop: {cures}"):
            PolicyServer(lambda x: x).run_blocking()

    asyncio.run(main())


def test_run_blocking_serves_until_it_is_stopped() -> None:
    class Stopping(PolicyServer):
        async def __aenter__(self) -> Stopping:
            entered = await super().__aenter__()
            asyncio.get_running_loop().call_soon(self.stop)
            return entered

    server = Stopping(lambda x: x, "127.0.0.1", 0)
    server.run_blocking()
    assert server.address.port


def test_it_runs_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")
    image = np.arange(480 * 640 * 3, dtype=np.uint8).reshape(480, 640, 3)

    async def main(server: Server) -> None:
        async with server, policyserve.AsyncClient(server.address.url) as client:
            for _ in range(5):
                np.testing.assert_array_equal((await client.infer({"image": image})).actions, image)

    with making(always(lambda observation: observation["image"])) as server:
        uvloop.run(main(server))


def test_a_signal_ends_a_server_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main(server: Server) -> None:
        run = server.run(on_ready=lambda _: os.kill(os.getpid(), signal.SIGTERM))
        await asyncio.wait_for(run, DEADLINE_S)

    with making(always(lambda x: x)) as server:
        uvloop.run(main(server))


def test_metadata_that_no_client_could_read_ends_the_loading_with_its_path() -> None:
    """Else every client would fail at its greeting, and the policy's author would see nothing."""

    async def main() -> None:
        policy = FunctionPolicy(lambda x: x, PolicySpec("arm", None, None, metadata={"robot": {0: "left"}}))
        async with PolicyServer(policy, "127.0.0.1", 0) as server:
            with pytest.raises(ConfigError, match=r"arm: metadata: .*robot/0: expected a text as key"):
                await server.ready()

    asyncio.run(main())
