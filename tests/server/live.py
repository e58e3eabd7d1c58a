"""A real server on a free port, in a thread of its own, and a raw TCP peer for what no client library would send."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import msgpack
import numpy as np
from websockets.sync.client import ClientConnection, connect

from policyserve.core.policy import as_policy
from policyserve.core.recipe import Recipe
from policyserve.dialects.vibe_rl import VibeRL
from policyserve.engine.runner import LoadPolicy
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server
from tests.server.far_policy import PolicyHome

T = TypeVar("T")
LOOP_VARIABLE = "_POLICYSERVE_TEST_LOOP"
RUNNER_VARIABLE = "_POLICYSERVE_TEST_RUNNER"
DEADLINE_S = 30.0  # generous: only a bug reaches it
WIRE = VibeRL()


def run_in_chosen_loop(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, or uvloop's with `pytest --loop uvloop`."""
    if os.environ.get(LOOP_VARIABLE) == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


def chosen_runner() -> str:
    """Where policies run: thread, or process with `pytest --runner process`."""
    return os.environ.get(RUNNER_VARIABLE, "thread")


@contextmanager
def making(load: LoadPolicy, **settings: Any) -> Iterator[Server]:
    """A server, not started, whose policy runs where `--runner` or `isolate` says, also one that shares our memory."""
    # A queue that refuses nobody for a wait: how long one takes on a busy machine is no test's business.
    usual = {"host": "127.0.0.1", "port": 0, "isolate": chosen_runner(), "max_queue_ms": 60_000.0}
    config = ServerConfig(**{**usual, **settings})
    if config.isolate == "thread" or isinstance(load, Recipe):
        yield Server(load, config)
        return
    home = PolicyHome(load)
    try:
        yield Server(home.recipe, config)
    finally:
        home.close()


def always(policy: Any) -> LoadPolicy:
    """Loads this policy, whichever kind it is."""
    ready = as_policy(policy)
    return lambda _: ready


class Live:
    """A running server, seen from another thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: asyncio.Event | None = None
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server")
        self._error: BaseException | None = None
        self.port = 0
        self.complaints: list[str] = []  # of the event loop: exceptions that nobody caught
        self.tasks_left: list[str] = []

    def start(self) -> None:
        self._thread.start()
        assert self._listens.wait(DEADLINE_S)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            run_in_chosen_loop(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._listens.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        assert type(self._loop).__module__.startswith(os.environ.get(LOOP_VARIABLE, "asyncio"))
        self._loop.set_exception_handler(lambda _, context: self.complaints.append(repr(context)))
        self._leave = asyncio.Event()
        async with self.server:
            self.port = self.server.address[1]
            self._listens.set()
            await self._leave.wait()
        await asyncio.sleep(0)
        self.tasks_left = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called in the server's event loop."""
        assert self._loop is not None

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_S)

    def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs in the server's event loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    def ready(self) -> None:
        """Wait for the policy; raises what loading raised."""
        self.finish(self.server.ready())

    def until(self, condition: Callable[[Server], bool]) -> None:
        """Wait until the server is so."""
        assert self._loop is not None

        async def wait() -> None:
            while not condition(self.server):  # noqa: ASYNC110 - any state of the server, and nobody tells of its change
                await asyncio.sleep(0.002)

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result(DEADLINE_S)

    def stop(self) -> None:
        """Have the server end as a signal would; returns at once."""
        assert self._loop is not None
        assert self._leave is not None
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._leave.set)

    def join(self) -> None:
        """Wait for its end; raises what it raised."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the server did not end"
        if self._error is not None:
            raise self._error

    # Peers

    def url(self, path: str = "/vibe_rl") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def websocket(self, path: str = "/vibe_rl", **options: Any) -> ClientConnection:
        """A plain `websockets` client."""
        return connect(self.url(path), **{"compression": None, "max_size": None, "close_timeout": 5, **options})

    def tcp(self) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self.port))
        peer.settimeout(DEADLINE_S)
        return peer

    def http(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """An HTTP answer: status, body, headers in lower case."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), {key.lower(): value for key, value in response.getheaders()}
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether a new session with a good request gets the right answer (of an echo policy)."""
        with self.websocket() as peer:
            return ask(peer, 41.0) == 41.0


@contextmanager
def serving(policy: Any = lambda x: x, *, load: LoadPolicy | None = None, **settings: Any) -> Iterator[Live]:
    """Serve a policy (an echo, unless told) and check at the end that the server leaves nothing behind."""
    with making(load or always(policy), **settings) as server, running(server) as live:
        if load is None:
            live.ready()
        yield live


@contextmanager
def running(server: Server) -> Iterator[Live]:
    """Run a server, and check at the end that it leaves nothing behind."""
    live = Live(server)
    live.start()
    try:
        yield live
    finally:
        live.stop()
        live.join()
    assert live.complaints == []
    assert live.tasks_left == []
    assert live.server.counters.sessions_open == 0
    gc.collect()  # a transport that nobody closed warns here, and warnings are errors


def none_open(live: Live) -> None:
    """Wait until no session is left."""
    live.until(lambda server: server.counters.sessions_open == 0)


def frame(x: Any, **more: Any) -> bytes:
    """A good vibe_rl request."""
    sent = WIRE.write_request({"obs": np.asarray(x, np.float32), **more})
    assert isinstance(sent, bytes)
    return sent


def request(dtype: Any = "<f4", shape: Any = (1,), data: Any = bytes(4)) -> bytes:
    """A vibe_rl request whose parts may lie."""
    return packed({"obs": data, "__meta__": {"obs": {"dtype": dtype, "shape": shape}}})


def packed(message: Any) -> bytes:
    sent = msgpack.packb(message)
    assert isinstance(sent, bytes)
    return sent


def answer(received: Any) -> float:
    """The one number in a vibe_rl reply."""
    return float(WIRE.read_reply(received).actions.ravel()[0])


def ask(peer: ClientConnection, x: float) -> float:
    """Send one number, get one number."""
    peer.send(frame([x]))
    return answer(peer.recv(timeout=DEADLINE_S))


HANDSHAKE = (
    b"GET /vibe_rl HTTP/1.1\r\nHost: robot\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def open_raw(live: Live, more: bytes = b"", path: str = "/vibe_rl") -> tuple[socket.socket, bytes]:
    """A WebSocket over bare TCP: the socket, and the response's head."""
    peer = live.tcp()
    peer.sendall(HANDSHAKE.replace(b"/vibe_rl", path.encode()) + more + b"\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = peer.recv(1)
        assert byte, head
        head += byte
    return peer, head


def masked(opcode: int, payload: bytes, *, fin: bool = True, length: int | None = None) -> bytes:
    """A client's WebSocket frame, masked with zeros; `length` may lie."""
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes([0x80 | size])
    elif size < 1 << 16:
        head = b"\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\xff" + size.to_bytes(8, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + head + bytes(4) + payload


def read_frame(peer: socket.socket) -> tuple[int, bytes]:
    """The server's next frame: opcode and payload."""
    first, second = _exactly(peer, 2)
    assert first & 0x70 == 0, "no extension was negotiated"
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(_exactly(peer, 2), "big")
    elif size == 127:
        size = int.from_bytes(_exactly(peer, 8), "big")
    return first & 0x0F, _exactly(peer, size)


def _exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise EOFError(data)
        data += more
    return data


def until_eof(peer: socket.socket) -> bytes:
    """All that the server still sends."""
    data = b""
    while more := peer.recv(65536):
        data += more
    return data
