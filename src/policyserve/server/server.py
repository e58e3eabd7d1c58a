"""The server: wiring and life cycle.

It listens at once and loads the policy behind; sessions that come early wait for it. A stopping server accepts
nobody, answers what is in flight, closes its sessions with 1001 and closes the policy.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from policyserve import dialects
from policyserve.core import memory
from policyserve.core.errors import NotReady, PolicyFailed, PolicyserveError
from policyserve.core.policy import as_policy
from policyserve.core.session import Session
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import LoadPolicy
from policyserve.engine.batcher import Batcher
from policyserve.engine.local import Replicas
from policyserve.engine.recipe import ReadyPolicy
from policyserve.engine.routing import Router
from policyserve.engine.scheduler import Scheduler
from policyserve.observe.counters import Stats
from policyserve.server import greeting, routes
from policyserve.server.admission import Admission
from policyserve.server.busy_poll import Awake
from policyserve.server.config import ServerConfig
from policyserve.server.connection import Connection
from policyserve.server.entrance import Entrance
from policyserve.server.guards import Budget, Throttle, more
from policyserve.server.handshake import Credentials, UpgradeRequest
from policyserve.server.host import Guest, Stranger
from policyserve.server.listener import Address

log = logging.getLogger(__name__)

Self = TypeVar("Self", bound="Server")

_AUTO = dialects.Auto()
_NOBODY = Credentials()
_TIDY_S = 10.0
_CLOSE_POLICY_S = 2.0  # how long a stopping server waits for the policy's thread
_CLOSE_SESSIONS_S = 2.0  # and for its peers to answer the close frame


class Server:
    """Serves one policy, which `load` brings, on one port.

    Use `await run()` (until a signal or stop()), or as an async context manager with `address` and `ready()`.
    """

    def __init__(self, load: LoadPolicy, config: ServerConfig | None = None) -> None:
        self.config = config or ServerConfig()
        self.stats = Stats()
        self.scheduler: Scheduler | Router | None = None
        self.awake = Awake(self.config.busy_poll_us / 1e6, lambda: self.scheduler is None or self.scheduler.is_working)
        self.on_stage: Callable[[str], None] | None = None  # told what loading is at, in the event loop
        self._replicas = Replicas(
            load,
            is_isolated=self.config.isolate == "process",
            count=self.config.replicas,
            devices=self.config.device_names,
        )
        self._spec: PolicySpec | None = None
        self._failure: NotReady | None = None  # why there will be no policy
        self._stage = "starting"
        self._connections: dict[int, Guest] = {}  # those with a session
        self._strangers: dict[int, Stranger] = {}  # those without one, the oldest first
        self._numbers = 0
        self._admission = Admission(self.config)
        self._entrance = Entrance(self.config, self._admission)
        self._throttle = Throttle()
        self._budget = Budget(self.config.max_buffered_bytes, lambda: list(self._connections.values()))
        self._loading: asyncio.Task[PolicySpec] | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._is_quiet = True  # no large message came since memory was looked after
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()  # told to stop twice: don't wait for what is in flight
        self._gone = asyncio.Event()  # no session is left
        self._gone.set()

    # For users

    @property
    def address(self) -> Address:
        """Where it listens: host and port, the real one where the config says 0; a Unix socket's path and 0."""
        return self._entrance.address

    @property
    def needs_key(self) -> bool:
        """Whether clients need an API key."""
        return bool(self._admission.keys)

    async def ready(self) -> PolicySpec:
        """Wait until the policy is loaded and warm; raises what loading raised."""
        assert self._loading is not None, "start the server first"
        return await asyncio.shield(self._loading)

    async def run(self, on_ready: Callable[[PolicySpec], None] | None = None) -> None:
        """Serve until SIGINT, SIGTERM or stop(); SIGHUP calls reload().

        Raises ConfigError if it cannot listen, and what loading raised. The C library keeps freed memory from then on.
        """
        memory.keep_freed()
        with _signals_call({signal.SIGINT: self.stop, signal.SIGTERM: self.stop, **self._hangup()}):
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

    def reload(self) -> None:
        """Read the API keys and the certificate again, for connections to come; what is wrong is logged, the old stays.

        Call it in the event loop's thread.
        """
        self._entrance.reload()

    async def __aenter__(self: Self) -> Self:
        await self._entrance.open(self._connection)
        self._loading = asyncio.get_running_loop().create_task(self._load())
        self._loading.add_done_callback(self._note_failure)
        self._tidy()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._loading is not None
        self._stop.set()
        self._entrance.close()
        for _ in range(3):
            await asyncio.sleep(0)  # who was accepted already gets here, see meet()
        for connection in list(self._connections.values()):
            if connection.session is not None:
                connection.perform(connection.session.drain())
        await self._drain()
        for connection in list(self._connections.values()):
            if connection.session is not None:
                connection.perform(connection.session.leave(1001, "the server is stopping"))
        await self._until_gone()
        self._loading.cancel()
        if self._tidying is not None:
            self._tidying.cancel()
        await self._replicas.close(_CLOSE_POLICY_S)

    # For connections (the Host protocol)

    def health(self, credentials: Credentials = _NOBODY) -> routes.Health:
        """What the HTTP routes tell this caller."""
        stage = self._stage or self._replicas.stage
        return routes.Health(self.stats, stage, is_told=self._admission.key_name(credentials) is not None)

    def meet(self, connection: Stranger) -> None:
        """Somebody has connected; of too many that have no session the one that is here longest is cut."""
        self._strangers[connection.number] = connection
        if self._stop.is_set():  # it came while the listener was being closed
            connection.abort()
        if len(self._strangers) > self.config.max_handshakes:
            oldest = self._strangers.pop(next(iter(self._strangers)))
            text = "cut peer=%s: %d connections are no session, the most this server takes"
            self.note(logging.WARNING, "cut", oldest.address, text, oldest.peer, self.config.max_handshakes)
            oldest.abort()

    def part(self, connection: Stranger) -> None:
        """The connection is gone: drop its requests and its policy state."""
        self._strangers.pop(connection.number, None)
        if connection.number in self._connections:
            self.close_session(self._connections[connection.number])

    def open_session(self, connection: Guest, asked: UpgradeRequest) -> Session | routes.Response:
        """A session for a connection whose handshake is fine, or the refusal to send instead."""
        if self._stop.is_set():
            return routes.text(503, "the server is stopping")
        refusal = self._admission.refusal(asked.credentials, connection.address)
        if refusal is not None:
            return refusal
        session = Session(
            greeting.dialect_of(asked.path, self.config),
            choice=_AUTO,
            max_pending=self.config.max_pending,
            debug_wire=self.config.debug_wire,
            limits=self.config.wire_limits,
        )
        self._strangers.pop(connection.number, None)
        self._connections[connection.number] = connection
        self._admission.enter(connection.address)
        self._gone.clear()
        self.stats.sessions_opened += 1
        self.stats.sessions_open += 1
        name = session.dialect.name if session.dialect else "auto"
        key = self._admission.key_name(asked.credentials)
        by_key = f" key={key}" if key else ""
        text = "session %d opened dialect=%s peer=%s%s"
        self.note(logging.INFO, "opened", connection.address, text, connection.number, name, connection.peer, by_key)
        return session

    def start_session(self, connection: Guest) -> None:
        """The handshake is through: serve at once if the policy is ready, or tell why it never will be."""
        if connection.session is None:
            return
        if self._failure is not None:
            connection.perform(connection.session.fail(self._failure))
        elif self._spec is not None:
            connection.perform(connection.session.serve(self._spec, greeting.metadata_of(self._spec)))
            connection.expect_first_frame(greeting.patience_s(connection.session, self._spec, self.config))

    def close_session(self, connection: Guest) -> None:
        """Drop a session's requests and its policy state; its connection may have an end to come."""
        if self._connections.pop(connection.number, None) is None:
            return
        self._admission.leave(connection.address)
        self.stats.sessions_open -= 1
        if not self._connections:
            self._gone.set()
        if self.scheduler is not None:
            self.scheduler.forget(connection.number)
        self.note(logging.INFO, "closed", connection.address, "session %d closed", connection.number)

    def grow(self, count: int) -> None:
        """`count` bytes more are held for some session; whoever holds most may lose its own to make room."""
        self._is_quiet = False
        self._budget.grow(count)

    def note(
        self, level: int, kind: str, address: str, text: str, *args: object, cause: BaseException | None = None
    ) -> None:
        """Log a line; of many of one kind for one peer's address only some, which say how many were left out."""
        held_back = self._throttle.passes((kind, address), time.monotonic())
        if held_back is not None:
            log.log(level, text + "%s", *args, more(held_back), exc_info=cause)

    # Inside

    def _connection(self) -> asyncio.BaseProtocol:
        self._numbers += 1
        connection = Connection(self, self._numbers)
        return self._entrance.lead_to(connection, self)

    def _hangup(self) -> dict[signal.Signals, Callable[[], None]]:
        """SIGHUP's handler, where there is something to read again; else it ends the program, as it does for all."""
        return {signal.SIGHUP: self.reload} if self._entrance.has_files and hasattr(signal, "SIGHUP") else {}

    async def _load(self) -> PolicySpec:
        loop = asyncio.get_running_loop()
        try:
            spec = await self._replicas.start(lambda stage: _tell(loop, self._set_stage, stage))
        except Exception as error:  # a stranger's loader: the sessions that wait are told, the caller gets it
            self._fail_sessions(error)
            raise
        config = self.config
        self.scheduler = self._replicas.serve(
            lambda: Batcher(spec.max_batch, config.max_queue, config.max_wait_s, config.max_queue_s),
            config.request_timeout_s,
        )
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

    def _tidy(self) -> None:
        """Give back the memory of a rush that is over; while large messages come it would be needed again at once."""
        if self._is_quiet:
            memory.give_back()
        self._is_quiet = True
        self._tidying = asyncio.get_running_loop().call_later(_TIDY_S, self._tidy)

    def _note_failure(self, loading: asyncio.Task[PolicySpec]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            log.debug("loading failed: %s", error)

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
        for connection in [*self._connections.values(), *self._strangers.values()]:
            connection.abort()


class PolicyServer(Server):
    """Serve a policy that is there already: a Policy, an object with `infer(obs)`, or a function of one observation."""

    def __init__(
        self, policy: Any, host: str = "0.0.0.0", port: int = 8000, *, config: ServerConfig | None = None
    ) -> None:
        super().__init__(ReadyPolicy(as_policy(policy)), replace(config or ServerConfig(), host=host, port=port))

    @property
    def _request_count(self) -> int:
        """Requests answered since the start; the founding document's name."""
        return self.stats.requests

    @property
    def _total_latency_ms(self) -> float:
        """Their latencies' sum; the founding document's name."""
        return self.stats.total_latency_ms


@contextmanager
def _signals_call(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Have signals call functions; only the main thread may take signals, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number, function in handlers.items():
        loop.add_signal_handler(number, function)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[str], None], text: str) -> None:
    try:
        loop.call_soon_threadsafe(function, text)
    except RuntimeError:
        log.debug("the loop ended while the policy loaded")
