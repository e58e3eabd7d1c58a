"""What both clients promise when servers come and go, over every kind of socket: one body of tests."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import serve as serve_async
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

from policyserve import AsyncClient, Client
from policyserve.core.errors import ClientInUse, ConnectionLost, DeadlineExceeded, RemoteError, WireError
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects import by_name
from tests.contract.clients import Make
from tests.plain_servers import plain_server
from tests.server.certificates import make_certificate, trusting
from tests.server.live import DEADLINE_S, answer, serving

X = np.array([1, 2], np.float32)
OPENPI, VIBE_RL = by_name("openpi"), by_name("vibe_rl")
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


def reply(x: Any, wire: Any = VIBE_RL) -> Any:
    return wire.write_reply(ActionChunk(np.asarray(x)), Timing(0, 0, 1))


def doubled(message: Any) -> Any:
    """vibe_rl's answer to vibe_rl's request."""
    return reply(next(iter(VIBE_RL.read_request(message).observation.values())) * 2)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# Reconnecting


def test_a_server_that_starts_late_is_waited_for(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    port, refused = free_port(), threading.Event()

    class Refused(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "trying again" in record.getMessage():
                refused.set()

    results: list[Any] = []
    client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl", timeout_s=DEADLINE_S, retry_for_s=DEADLINE_S)
    asking = threading.Thread(target=lambda: results.append(client.infer({"obs": X}).actions.tolist()))
    handler = Refused()
    logging.getLogger("policyserve.client").addHandler(handler)
    try:
        asking.start()
        assert refused.wait(DEADLINE_S), "nobody was told that the server does not answer"
        with serving(lambda x: x, port=port):
            asking.join()
            client.close()
    finally:
        logging.getLogger("policyserve.client").removeHandler(handler)
    assert results == [[1, 2]]
    assert client.sessions_opened == 1


def test_a_new_session_is_counted_and_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "policyserve.client")
    with serving(lambda x: x) as live:
        client = make(live.url(), dialect="vibe_rl")
        assert client.sessions_opened == 0
        client.infer({"obs": X})
        client.infer({"obs": X})
        assert client.sessions_opened == 1
        client.reset()
        assert client.sessions_opened == 2
        client.close()
    (line,) = [record.getMessage() for record in caplog.records if "again" in record.getMessage()]
    assert "a new session" in line


def test_a_request_that_was_sent_is_never_sent_again(make: Make) -> None:
    asked: list[Any] = []

    def take_and_go(peer: ServerConnection) -> None:
        asked.append(peer.recv())
        peer.socket.shutdown(socket.SHUT_RDWR)

    with plain_server(take_and_go) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl")
        with pytest.raises(ConnectionLost):
            client.infer({"obs": X})
    assert len(asked) == 1


def test_a_request_of_which_half_was_sent_is_never_sent_again(make: Make) -> None:
    opened: list[int] = []

    def handle(peer: ServerConnection) -> None:
        opened.append(1)
        with suppress(ConnectionClosed):
            peer.recv()

    with plain_server(handle, max_size=1 << 20) as port:  # the server closes at the frame's header
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl")
        with pytest.raises(RemoteError):
            client.infer({"obs": np.zeros(8_000_000, np.float32)})
    assert len(opened) == 1


def test_a_busy_server_is_asked_again_until_it_has_room(make: Make) -> None:
    turned_away: list[int] = []

    def gate(peer: ServerConnection, request: Request) -> Response | None:
        if len(turned_away) < 3:
            turned_away.append(1)
            return peer.respond(HTTPStatus.SERVICE_UNAVAILABLE, "256 sessions are open\n")
        return None

    with plain_server(lambda peer: peer.send(doubled(peer.recv())), process_request=gate) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl")
        assert client.infer({"obs": X}).actions.tolist() == [2, 4]
        client.close()
    assert len(turned_away) == 3


def test_a_server_that_stays_busy_is_a_connection_lost_that_says_so(make: Make) -> None:
    def gate(peer: ServerConnection, request: Request) -> Response:
        return peer.respond(HTTPStatus.SERVICE_UNAVAILABLE, "256 sessions are open\n")

    with plain_server(lambda peer: None, process_request=gate) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl", retry_for_s=0.1)
        with pytest.raises(ConnectionLost, match=r"HTTP 503 .*256 sessions are open; tried \d+ times"):
            client.infer({"obs": X})


def test_a_refused_key_is_told_at_once(make: Make) -> None:
    asked: list[int] = []

    def gate(peer: ServerConnection, request: Request) -> Response:
        asked.append(1)
        return peer.respond(HTTPStatus.UNAUTHORIZED, "no such key\n")

    with plain_server(lambda peer: None, process_request=gate) as port:
        client = make(f"ws://127.0.0.1:{port}", api_key="wrong-key")
        with pytest.raises(RemoteError, match=r"refused the API key \(HTTP 401 .*no such key") as caught:
            client.infer({"obs": X})
    assert not isinstance(caught.value, ConnectionLost)
    assert "wrong-key" not in str(caught.value)
    assert len(asked) == 1


def test_a_server_that_leaves_before_its_greeting_is_tried_again(make: Make) -> None:
    opened: list[int] = []

    def handle(peer: ServerConnection) -> None:
        opened.append(1)
        if len(opened) == 1:
            peer.close(1012, "restarting")
            return
        peer.send(OPENPI.greeting({"robot": "arm"}) or b"")
        for _ in peer:
            peer.send(reply([1.0], OPENPI))

    with plain_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="openpi")
        assert client.infer({"obs": X}).actions.tolist() == [1.0]
        assert client.metadata["robot"] == "arm"
        client.close()
    assert len(opened) == 2


# Openings that were closed meanwhile


def test_a_close_behind_an_error_does_not_meet_the_next_call(make: Make) -> None:
    """openpi's server: the traceback as a text frame, then close 1011."""

    async def handle(peer: Any) -> None:
        await peer.send(OPENPI.greeting({}))
        async for message in peer:
            if OPENPI.read_request(message).observation["obs"][0] < 0:
                await peer.send("Traceback: the arm fell off")
                await peer.close(1011, "Internal server error. Traceback included in previous frame.")
                return
            await peer.send(reply([1.0], OPENPI))

    with openpi_like_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="openpi")
        for _ in range(20):
            with pytest.raises(RemoteError, match="the arm fell off"):
                client.infer({"obs": -X})
            assert client.infer({"obs": X}).actions.tolist() == [1.0]
        assert client.sessions_opened == 21
        client.close()


@contextmanager
def openpi_like_server(handle: Callable[[Any], Any]) -> Iterator[int]:
    """A server that does all in one event loop, as openpi's."""
    ports: queue.Queue[int] = queue.Queue()
    loop = asyncio.new_event_loop()
    leave = asyncio.Event()

    async def run() -> None:
        async with serve_async(handle, "127.0.0.1", 0, compression=None) as server:
            ports.put(next(iter(server.sockets)).getsockname()[1])
            await leave.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[run()])
    thread.start()
    try:
        yield ports.get(timeout=DEADLINE_S)
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        loop.close()


def test_an_answer_that_nobody_asked_for_is_never_taken_for_anothers(make: Make) -> None:
    def handle(peer: ServerConnection) -> None:
        for message in peer:
            payload = doubled(message)
            peer.socket.sendall((bytes((0x82, len(payload))) + payload) * 2)

    with plain_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl")
        for number in (1, 2, 3):
            assert client.infer({"obs": X * number}).actions.tolist() == [2 * number, 4 * number]
            with pytest.raises(WireError, match="one answer to each request"):
                client.infer({"obs": X})
        client.close()


def test_a_ping_that_came_while_nothing_was_asked_is_answered_with_the_next_call(make: Make) -> None:
    answered: list[bool] = []

    def handle(peer: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            pong = peer.ping(b"still there?")
            for message in peer:
                peer.send(doubled(message))
                answered.append(pong.wait(DEADLINE_S))

    with plain_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl")
        for _ in range(2):
            assert client.infer({"obs": X}).actions.tolist() == [2, 4]
        client.close()
    assert answered[0]


# What a call leaves behind


def test_answers_are_the_callers_own(make: Make) -> None:
    with serving(lambda x: x) as live:
        client = make(live.url(), dialect="vibe_rl")
        for size in (3, 3_000, 300_000):
            kept = [client.infer({"obs": np.full(size, number, np.float32)}).actions for number in range(6)]
            for number, actions in enumerate(kept):
                assert actions.flags.writeable
                assert actions.flags.aligned
                assert (actions == number).all()
        client.close()


def test_an_observation_is_sent_whatever_its_memory_looks_like(make: Make) -> None:
    image = np.random.default_rng(0).integers(0, 255, (700, 500, 3), np.uint8)
    with serving(lambda x: x) as live:
        client = make(live.url(), dialect="vibe_rl")
        for view in (
            image,
            image[::2],
            image.transpose(1, 0, 2),
            image[:, :, ::-1],
            image[1:, 1:],
            image.astype(">f4"),
        ):
            before = view.copy()
            np.testing.assert_array_equal(client.infer({"obs": view}).actions, before)
            np.testing.assert_array_equal(view, before)
        client.close()


# Kinds of sockets


@needs_unix
@pytest.mark.parametrize("path", ["", ":/vibe_rl"])
def test_a_unix_socket_serves_as_well(make: Make, tmp_path: Path, path: str) -> None:
    with serving(lambda x: x, uds=str(tmp_path / "p.sock")):
        client = make(f"ws+unix://{tmp_path}/p.sock{path}", dialect="vibe_rl")
        for size in (4, 3_000, 4_000_000):
            sent = np.random.default_rng(size).integers(0, 255, size, np.uint8)
            np.testing.assert_array_equal(client.infer({"obs": sent}).actions, sent)
        client.close()


@needs_unix
def test_a_unix_socket_that_is_not_there_is_named(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConnectionLost, match=r"cannot connect to ws\+unix:///.*/p.sock:/openpi: No such file"):
        make(f"ws+unix://{tmp_path}/p.sock", retry_for_s=0).infer({"obs": X})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_wss_serves_as_well(make: Make, certificate: tuple[str, str]) -> None:
    with serving(lambda x: x, tls_cert=certificate[0], tls_key=certificate[1]) as live:
        client = make(f"wss://localhost:{live.port}", dialect="vibe_rl", ssl_context=trusting(certificate[0]))
        for size in (4, 3_000, 4_000_000):
            for _ in range(2):
                sent = np.random.default_rng(size).integers(0, 255, size, np.uint8)
                np.testing.assert_array_equal(client.infer({"obs": sent}).actions, sent)
        client.close()


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(make: Make, certificate: tuple[str, str]) -> None:
    with (
        serving(lambda x: x, tls_cert=certificate[0], tls_key=certificate[1]) as live,
        pytest.raises(ConnectionLost, match="certificate verify failed"),
    ):
        make(f"wss://localhost:{live.port}", dialect="vibe_rl").infer({"obs": X})


# Two calls at a time


def test_a_second_call_is_refused_and_the_first_goes_on() -> None:
    started, release = threading.Event(), threading.Event()

    def slow(x: Any) -> Any:
        if x[0] == 1:
            started.set()
            assert release.wait(DEADLINE_S)
        return x

    results: list[Any] = []
    with serving(slow) as live, Client(live.url(), dialect="vibe_rl") as client:
        first = threading.Thread(target=lambda: results.append(client.infer({"obs": X}).actions.tolist()))
        first.start()
        assert started.wait(DEADLINE_S)
        for second in (lambda: client.infer({"obs": X * 2}), client.reset, client.close, client.connect):
            with pytest.raises(ClientInUse, match="in the middle of a call"):
                second()
        release.set()
        first.join()
        assert results == [[1, 2]]
        assert client.infer({"obs": X * 2}).actions.tolist() == [2, 4]
        assert client.sessions_opened == 1


def test_a_second_task_is_refused_and_the_first_goes_on() -> None:
    started, release = threading.Event(), threading.Event()

    def slow(x: Any) -> Any:
        if x[0] == 1:
            started.set()
            assert release.wait(DEADLINE_S)
        return x

    async def talk(url: str) -> None:
        async with AsyncClient(url, dialect="vibe_rl") as client:
            first = asyncio.ensure_future(client.infer({"obs": X}))
            await asyncio.to_thread(started.wait, DEADLINE_S)
            for second in (client.infer({"obs": X * 2}), client.reset(), client.close()):
                with pytest.raises(ClientInUse, match="in the middle of a call"):
                    await second
            release.set()
            assert (await first).actions.tolist() == [1, 2]
            assert (await client.infer({"obs": X * 2})).actions.tolist() == [2, 4]
            assert client.sessions_opened == 1

    with serving(slow) as live:
        asyncio.run(talk(live.url()))


def test_a_server_that_dribbles_its_answer_does_not_stretch_the_deadline(make: Make) -> None:
    over = threading.Event()

    def dribble(peer: ServerConnection) -> None:
        peer.recv()
        with suppress(OSError):
            peer.socket.sendall(b"\x82\x7e\x40\x00")
            while not over.wait(0.05):
                peer.socket.sendall(b"x")

    with plain_server(dribble) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="vibe_rl", timeout_s=1.0)
        with pytest.raises(DeadlineExceeded, match="no answer"):
            client.infer({"obs": X})
        over.set()


def test_the_answer_helper_reads_what_the_servers_here_write() -> None:
    assert answer(reply([41.0])) == 41.0
