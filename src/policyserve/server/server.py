"""The server: wiring and life cycle.

It listens at once and loads the policy behind; sessions that come early wait for it. A stopping server accepts
nobody, answers what is in flight, closes its sessions with 1001 and closes the policy.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import threading
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakSet

from policyserve import dialects
from policyserve.core.batcher import Batcher
from policyserve.core.dialect import Dialect
from policyserve.core.errors import ConfigError, NotReady, PolicyFailed, PolicyserveError
from policyserve.core.policy import as_policy
from policyserve.core.session import Failed, Send, Session
from policyserve.core.spec import PolicySpec
from policyserve.core.stats import Stats
from policyserve.core.version import VERSION
from policyserve.engine.runner import LoadPolicy, Runner, ThreadRunner
from policyserve.engine.scheduler import Scheduler
from policyserve.server import http
from policyserve.server.buffers import BufferPool
from policyserve.server.config import ServerConfig
from policyserve.server.websocket import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

Self = TypeVar("Self", bound="Server")

_POOL_BYTES = 256 * 1024 * 1024
_AUTO = dialects.Auto()
_CLOSE_POLICY_S = 2.0  # how long a stopping server waits for the policy's thread
_CLOSE_SESSIONS_S = 2.0  # and for its peers to answer the close frame


class Address(NamedTuple):
    """A host and a port, as a socket has them."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """`ws://host:port`."""
        return f"ws://[{self.host}]:{self.port}" if ":" in self.host else f"ws://{self.host}:{self.port}"


class Server:
    """Serves one policy, which `load` brings, on one port.

    Use `await run()` (until a signal or stop()), or as an async context manager with `address` and `ready()`.
    """

    def __init__(self, load: LoadPolicy, config: ServerConfig | None = None) -> None:
        self.config = config or ServerConfig()
        self.stats = Stats()
        self.pool = BufferPool(_POOL_BYTES)
        self.scheduler: Scheduler | None = None
        self.on_stage: Callable[[str], None] | None = None  # told what loading is at, in the event loop
        self._runner: Runner = ThreadRunner(load)
        self._spec: PolicySpec | None = None
        self._failure: NotReady | None = None  # why there will be no policy
        self._stage = "starting"
        self._connections: dict[int, Connection] = {}  # those with a session
        self._all_connections: WeakSet[Connection] = WeakSet()  # those that still shake hands, too
        self._numbers = 0
        self._listener: asyncio.Server | None = None
        self._loading: asyncio.Task[PolicySpec] | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()  # told to stop twice: don't wait for what is in flight
        self._gone = asyncio.Event()  # no session is left
        self._gone.set()

    # For users

    @property
    def address(self) -> Address:
        """Where it listens: host and port, the real one where the config says 0."""
        if self._listener is None or not self._listener.sockets:
            raise ConfigError("the server does not listen: start it first")
        name = self._listener.sockets[0].getsockname()
        return Address(name[0], name[1])

    async def ready(self) -> PolicySpec:
        """Wait until the policy is loaded and warm; raises what loading raised."""
        assert self._loading is not None, "start the server first"
        return await asyncio.shield(self._loading)

    async def run(self, on_ready: Callable[[PolicySpec], None] | None = None) -> None:
        """Serve until SIGINT, SIGTERM or stop(). Raises ConfigError if the port is taken, and what loading raised."""
        with _signals_call(self.stop):
            async with self:
                assert self._loading is not None
                stopped = asyncio.ensure_future(self._stop.wait())
                await asyncio.wait([stopped, self._loading], return_when=asyncio.FIRST_COMPLETED)
                try:
                    if self._loading.done():
                        spec = self._loading.result()
                        if on_ready is not None:
                            on_ready(spec)
                        await stopped
                finally:
                    stopped.cancel()

    def run_blocking(self) -> None:
        """`asyncio.run(run())`."""
        asyncio.run(self.run())

    def stop(self) -> None:
        """Have run() end as a signal would; a second call ends the drain. Call it in the event loop's thread."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def __aenter__(self: Self) -> Self:
        self._listener = await self._listen()
        self._loading = asyncio.get_running_loop().create_task(self._load())
        self._loading.add_done_callback(self._note_failure)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._listener is not None
        assert self._loading is not None
        self._stop.set()
        self._listener.close()
        for connection in list(self._connections.values()):
            if connection.session is not None:
                connection.perform(connection.session.drain())
        await self._drain()
        for connection in list(self._connections.values()):
            if connection.session is not None:
                connection.perform(connection.session.leave(1001, "the server is stopping"))
        await self._until_gone()
        self._loading.cancel()
        await self._runner.close(_CLOSE_POLICY_S)

    # For connections (the Host protocol)

    def health(self) -> http.Health:
        """What the HTTP routes tell."""
        return http.Health(self.stats, self._stage)

    def open_session(self, connection: Connection, path: str) -> Session | http.Response:
        """A session for a connection whose handshake is fine, or the refusal to send instead."""
        if self._stop.is_set():
            return http.text(503, "the server is stopping")
        if len(self._connections) >= self.config.max_sessions:
            return http.text(503, f"{self.config.max_sessions} sessions are open, the most this server takes")
        session = Session(
            self._dialect(path),
            choice=_AUTO,
            max_pending=self.config.max_pending,
            debug_wire=self.config.debug_wire,
        )
        self._connections[connection.number] = connection
        self._gone.clear()
        self.stats.sessions_opened += 1
        self.stats.sessions_open += 1
        name = session.dialect.name if session.dialect else "auto"
        log.info("session %d opened dialect=%s peer=%s", connection.number, name, connection.peer)
        return session

    def start_session(self, connection: Connection) -> None:
        """The handshake is through: serve at once if the policy is ready, or tell why it never will be."""
        if connection.session is None:
            return
        if self._failure is not None:
            connection.perform(connection.session.fail(self._failure))
        elif self._spec is not None:
            connection.perform(connection.session.serve(self._spec, self._metadata(self._spec)))
            connection.expect_first_frame(self._patience_s(connection.session, self._spec))

    def close_session(self, connection: Connection) -> None:
        """The connection is gone: drop its requests and its policy state."""
        if self._connections.pop(connection.number, None) is None:
            return
        self.stats.sessions_open -= 1
        if not self._connections:
            self._gone.set()
        if self.scheduler is not None:
            self.scheduler.forget(connection.number)
        log.info("session %d closed", connection.number)

    def count(self, effect: Send | Failed) -> None:
        """Keep the statistics."""
        if isinstance(effect, Failed):
            self.stats.errors[effect.error.code] += 1
        elif effect.latency_ms is not None:
            self.stats.answered(effect.latency_ms)

    # Inside

    def _dialect(self, path: str) -> Dialect | None:
        pinned = None if self.config.dialect == "auto" else dialects.by_name(self.config.dialect)
        return dialects.for_path(path) or pinned

    def _patience_s(self, session: Session, spec: PolicySpec) -> float | None:
        """How long to wait for a session's first frame; None where the server has the first word."""
        if session.heard:
            return None
        if session.dialect is not None:
            return None if session.dialect.greets else self.config.first_frame_timeout_s
        home = spec.dialect and dialects.by_name(spec.dialect)
        return self.config.hello_grace_s(client_first=bool(home and not home.greets))

    async def _listen(self) -> asyncio.Server:
        host, port = self.config.host, self.config.port
        try:
            return await asyncio.get_running_loop().create_server(self._connection, host, port, backlog=1024)
        except OSError as error:
            what = (
                "is in use by another program"
                if error.errno == errno.EADDRINUSE
                else f"cannot be bound: {error.strerror or error}"
            )
            raise ConfigError(f"port {port} on {host} {what}") from error

    def _connection(self) -> Connection:
        self._numbers += 1
        connection = Connection(self, self._numbers)
        self._all_connections.add(connection)
        return connection

    async def _load(self) -> PolicySpec:
        loop = asyncio.get_running_loop()
        try:
            spec = await self._runner.start(lambda stage: _tell(loop, self._set_stage, stage))
        except Exception as error:  # a stranger's loader: the sessions that wait are told, the caller gets it
            self._fail_sessions(error)
            raise
        batcher = Batcher(spec.max_batch, self.config.max_queue, self.config.max_wait_s)
        self.scheduler = Scheduler(self._runner, batcher, self.config.request_timeout_s)
        self._spec = spec
        self._stage = ""
        for connection in list(self._connections.values()):
            self.start_session(connection)
        return spec

    def _set_stage(self, stage: str) -> None:
        if self._spec is None:
            self._stage = stage
            log.debug("%s", stage)
            if self.on_stage is not None:
                self.on_stage(stage)

    def _fail_sessions(self, error: Exception) -> None:
        self._stage = "loading failed"
        told = error if isinstance(error, PolicyserveError) else PolicyFailed("the policy could not be loaded")
        self._failure = NotReady(f"not served: {told}")
        for connection in list(self._connections.values()):
            self.start_session(connection)

    def _note_failure(self, loading: asyncio.Task[PolicySpec]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            log.debug("loading failed: %s", error)

    def _metadata(self, spec: PolicySpec) -> Mapping[str, Any]:
        """What a greeting tells: what the policy declares, what Wall-X's clients look for, its spec, and who we are."""
        shape = spec.action.shape if spec.action else ()
        founding = {"action_dim": shape[-1] if shape else None, "pred_horizon": spec.horizon or 1}
        blanks = dict.fromkeys(("device", "predict_mode", "env"))
        return {**founding, **blanks, **spec.metadata, "spec": spec.describe(), "policyserve": VERSION}

    async def _drain(self) -> None:
        if self.scheduler is None:
            return
        drained = asyncio.ensure_future(self.scheduler.drained())
        hurried = asyncio.ensure_future(self._hurry.wait())
        first = asyncio.FIRST_COMPLETED
        done, waiting = await asyncio.wait([drained, hurried], timeout=self.config.drain_s, return_when=first)
        for future in waiting:
            future.cancel()
        if drained not in done:
            log.warning("stopping with requests unanswered")

    async def _until_gone(self) -> None:
        """Give peers a moment to answer the close frame, then cut what is left."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._gone.wait(), _CLOSE_SESSIONS_S)
        for connection in list(self._all_connections):
            connection.abort()


class PolicyServer(Server):
    """Serve a policy that is there already: a Policy, an object with `infer(obs)`, or a function of one observation."""

    def __init__(
        self, policy: Any, host: str = "0.0.0.0", port: int = 8000, *, config: ServerConfig | None = None
    ) -> None:
        ready = as_policy(policy)
        super().__init__(lambda _on_stage: ready, replace(config or ServerConfig(), host=host, port=port))

    @property
    def _request_count(self) -> int:
        """Requests answered since the start; the founding document's name."""
        return self.stats.requests

    @property
    def _total_latency_ms(self) -> float:
        """Their latencies' sum; the founding document's name."""
        return self.stats.total_latency_ms


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[str], None], text: str) -> None:
    try:
        loop.call_soon_threadsafe(function, text)
    except RuntimeError:
        log.debug("the loop ended while the policy loaded")


@contextmanager
def _signals_call(function: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `function`; only the main thread may take signals, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, function)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
