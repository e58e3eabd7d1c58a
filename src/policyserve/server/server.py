"""The server: joins its parts, and starts and stops them.

It listens at once and loads the policy behind; sessions that come early wait for it. A stopping server accepts
nobody, answers what is in flight, closes its sessions with 1001 and closes the policy.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

from policyserve import dialects
from policyserve.core import memory
from policyserve.core.errors import ConfigError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observer, Observers
from policyserve.core.printable import text_of
from policyserve.core.recipe import Newest
from policyserve.core.spec import PolicySpec
from policyserve.core.spec_from_values import SeenPolicy
from policyserve.engine.answering import LoadPolicy
from policyserve.engine.engine import Engine
from policyserve.engine.swaps import Swap, Swapped, When
from policyserve.observe.counters import Counters
from policyserve.observe.statistics import StatisticsLog
from policyserve.recordings.recorder import Recorder
from policyserve.server.admission import Admission
from policyserve.server.busy_poll import BusyPoll
from policyserve.server.config import ServerConfig
from policyserve.server.connection import Connection
from policyserve.server.entrance import Entrance
from policyserve.server.exchange import FindPolicy, swapping, title_of
from policyserve.server.exchange_page import add_exchange_pages
from policyserve.server.following import Follower, Look, follower_of
from policyserve.server.listener import Address
from policyserve.server.live import LivePage
from policyserve.server.loading import load_all
from policyserve.server.metrics import Metrics
from policyserve.server.offers import Offer, check_keys, make_catalogue
from policyserve.server.other_ports import OtherPorts
from policyserve.server.reception import Reception
from policyserve.server.served import Served
from policyserve.server.spare_memory import SpareMemory
from policyserve.server.splits import Split
from policyserve.server.stopping import end_sessions
from policyserve.server.turns import LoopTurns
from policyserve.websocket.server_frames import make_scratch

log = Log(__name__)

Self = TypeVar("Self", bound="Server")

_CLOSE_POLICY_S = 2.0  # how long a stopping server waits for the policy to close
_CLOSE_BUSY_POLICY_S = 0.5  # and for one that has not answered within the drain: most probably it hangs
_CLOSE_SESSIONS_S = 2.0  # and, unless farewell_s says otherwise, for its peers to answer the close frame


class Server:
    """Serves policies on one port: one, or several by name.

    policy: what loads it, here and as the config says, or an Engine that runs it elsewhere; of several a map of these,
    or of Offers, by their names, the default one first. routes: paths behind which several of them stand, as "/arm".
    Use `await run()` (until a signal or stop()), or as an async context manager with `address` and `ready()`.
    Raises ConfigError for names, routes and settings that do not go together.
    """

    def __init__(
        self,
        policy: LoadPolicy | Engine | Mapping[str, LoadPolicy | Engine | Offer],
        config: ServerConfig | None = None,
        routes: Mapping[str, Split] | None = None,
    ) -> None:
        self.config = config or ServerConfig()
        self.counters = Counters()
        self.observers = Observers(_log_failed_observer)
        self.observers.add(self.counters, is_trusted=True)
        self.catalogue = make_catalogue(policy, self.config, self.observers, self.counters, routes or {})
        for served in self.catalogue:
            served.on_stage, served.on_seen = self._note_stage, self._note_seen
        self.busy_poll = BusyPoll(self.config.busy_poll_us / 1e6, self._make_is_working())
        self._turns, self._scratch = LoopTurns(), make_scratch()
        self.on_stage: Callable[[str], None] | None = None  # told what loading is at, in the event loop
        self.on_stop: Callable[[], None] | None = None  # called by each signal that stops it, before anything else
        self.statistics = StatisticsLog(self.counters, lambda: self.load, self.config.stats_every_s)
        self.on_seen: Callable[[SeenPolicy], None] = _log_seen  # told, once, what a policy without a spec takes
        self.farewell_s = _CLOSE_SESSIONS_S  # how long it waits at its end for peers to answer the close frame
        admission = Admission(self.config)
        self.reception = Reception(self.config, self.catalogue, self.observers, self.counters, admission)
        self._spare_memory = SpareMemory(lambda: self.reception.large_bytes)
        self.reception.on_relief = self._spare_memory.give_back
        self.recorder = self._add_recorder() if self.config.record is not None else None
        self._metrics = self._add_metrics() if self.config.metrics else None
        self.live = LivePage(self.reception, self.observers, self.counters, self.config)
        if self.config.live:
            self.live.add_to(self.reception)
        self.find_policy: FindPolicy | None = None  # finds the policies that PUT /policies/NAME names
        add_exchange_pages(self.reception.routes, self.catalogue, lambda: self.find_policy)
        self.catalogue.check_taken(self.reception.routes.paths, ())
        self._entrance = Entrance(self.config, admission)
        self._other_ports = OtherPorts(self.config, self.reception, self.ready)
        self.lerobot, self.gr00t = self._other_ports.lerobot, self._other_ports.gr00t
        self.gr00t_for = self._other_ports.gr00t_for
        if self.lerobot is not None:
            self.observers.add(self.lerobot)
        self._numbers = 0  # of connections, below 0: sessions have numbers of their own
        self._loading: asyncio.Task[PolicySpec] | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()  # told to stop twice: don't wait for what is in flight
        self._has_ended = False
        self._followers: list[Follower] = []  # of training runs

    def __repr__(self) -> str:
        return f"<policyserve.{type(self).__name__} {self._state()}>"

    # For users

    @property
    def address(self) -> Address:
        """Where it listens: host and port, the real one where the config says 0; a Unix socket's path and 0."""
        return self._entrance.address

    @property
    def needs_key(self) -> bool:
        """Whether clients need an API key."""
        return bool(self.reception.admission.keys)

    @property
    def engine(self) -> Engine:
        """The default policy's."""
        return self.catalogue.default.engine

    @property
    def load(self) -> int:
        """Requests that have no answer yet, those of all policies."""
        return sum(served.engine.load for served in self.catalogue)

    @property
    def learns_spec(self) -> bool:
        """Whether the default policy declares no spec, and has not answered yet."""
        return self.catalogue.default.learns_spec

    def served(self, name: str) -> Served:
        """The policy of this name; "default" is the only one of a server that gives none. Raises ConfigError."""
        return self.catalogue.named(name)

    async def ready(self) -> PolicySpec:
        """Wait until the policy is loaded and warm; raises what loading raised.

        Of several, until each has loaded or failed; returns the spec of the first that is ready, and raises if none is.
        """
        assert self._loading is not None, "start the server first"
        return await asyncio.shield(self._loading)

    async def run(self, on_ready: Callable[[PolicySpec], None] | None = None) -> None:
        """Serve until SIGINT, SIGTERM or stop(); SIGHUP calls reload(), whether there is anything to read again or not.

        Raises ConfigError if it cannot listen, and what loading raised. The C library keeps freed memory from then on.
        """
        memory.keep_freed()
        handlers = {signal.SIGINT: self.stop, signal.SIGTERM: self.stop}
        if hasattr(signal, "SIGHUP"):  # Windows has none
            handlers[signal.SIGHUP] = self.reload
        with _signals_call(handlers):
            await self.run_until_stopped(on_ready)

    async def run_until_stopped(self, on_ready: Callable[[PolicySpec], None] | None = None) -> None:
        """Serve until stop(), and change nothing of the process: neither its signals nor how it keeps memory.

        Raises ConfigError if it cannot listen, and what loading raised.
        """
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
        """`asyncio.run(run())`; raises ConfigError where an event loop runs already, as in a notebook."""
        with suppress(RuntimeError):  # none runs
            asyncio.get_running_loop()
            cures = "`await server.run()` serves in it, policyserve.start(policy) in a thread of its own"
            raise ConfigError(f"run_blocking() was called inside a running event loop: {cures}")
        asyncio.run(self.run())

    def stop(self) -> None:
        """Have run() end as a signal would; a second call ends the drain. Call it in the event loop's thread."""
        if self.on_stop is not None:
            self.on_stop()
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def reload(self) -> None:
        """Read the API keys and the certificate again, for connections to come; what is wrong is logged, the old stays.

        Call it in the event loop's thread.
        """
        self._entrance.reload()

    async def swap(
        self,
        policy: LoadPolicy,
        name: str | None = None,
        *,
        title: str = "",
        when: When = "now",
        unload_first: bool = False,
        force: bool = False,
        timeout_s: float | None = None,
    ) -> Swapped:
        """Have another policy take over from the one of this name, or from the default one; returns when it answers.

        policy: what loads it, a Recipe for example. title: what people call it. The other arguments are Swap's. Call it
        in the event loop's thread. Raises ConfigError where it cannot take over, with the reason, and what loading
        raised; the policy before goes on then.
        """
        served = self._exchanged(name)
        assert served.next_policy is not None, "it is there for what the catalogue has made"
        how = Swap(when, unload_first, force, timeout_s)
        following = served.next_policy(policy, title or title_of(policy))
        return await swapping(served.engine, served.name).swap(following, how)

    async def swap_back(self, name: str | None = None, how: Swap | None = None) -> Swapped:
        """Return to the policy before, which is loaded again; raises what swap() raises, and if there is none."""
        served = self._exchanged(name)
        return await swapping(served.engine, served.name).back(how)

    def follow(
        self,
        look: Look,
        first: Newest | None,
        title: str = "",
        name: str | None = None,
        *,
        when: When = "now",
        every_s: float = 1.0,
    ) -> None:
        """Have each newer checkpoint of a training run take over from a policy, from the server's start on.

        look: finds the newest, in a thread. first: what the server was given; None: the run has no complete one yet, so
        that the policy cannot be loaded until there is. title: of the run. name: of the policy; None: the default one.
        Raises ConfigError where the policy cannot be exchanged.
        """
        self._followers.append(follower_of(self._exchanged(name), look, first, title, when=when, every_s=every_s))

    async def __aenter__(self: Self) -> Self:
        for fault in dialects.load_all():
            log.warning("%s", fault)
        self.catalogue.check_taken(self.reception.routes.paths, dialects.names())
        await self._entrance.open(self._connection)
        await self._start_beside()
        self._loading = asyncio.get_running_loop().create_task(load_all(self.catalogue))
        self._loading.add_done_callback(self._note_failure)
        await self._other_ports.start()
        self._spare_memory.start()
        self.statistics.start()
        for follower in self._followers:
            follower.start()
        if self._metrics is not None:
            self._metrics.lag.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._loading is not None
        self._stop.set()
        self._entrance.close()
        is_drained = await end_sessions(self.reception, self._hurry, self.config.drain_s, self.farewell_s)
        await self._other_ports.close()
        self._loading.cancel()
        self._spare_memory.stop()
        self.statistics.stop()
        for follower in self._followers:
            await follower.stop()
        if self._metrics is not None:
            self._metrics.lag.stop()
        self.live.stop_watching()
        self.reception.decoder.close()
        patience_s = _CLOSE_POLICY_S if is_drained else _CLOSE_BUSY_POLICY_S
        await asyncio.gather(*(served.engine.close(patience_s) for served in self.catalogue))
        if self.recorder is not None:
            await self.recorder.close()
        self._has_ended = True

    # Inside

    def _exchanged(self, name: str | None) -> Served:
        return self.catalogue.default if name is None else self.catalogue.named(name)

    def _add_recorder(self) -> Recorder:
        plan = self.config.recording_plan
        assert plan is not None, "there is a directory"
        recorder = Recorder(plan)
        recorder.on_end = lambda: self.observers.remove(recorder)
        self.observers.add(recorder)
        return recorder

    async def _start_beside(self) -> None:
        """Start what stands beside the listener, which is closed if that fails."""
        try:
            check_keys(self.catalogue, self.reception.admission.keys.names)
            await self._other_ports.open()
            if self.recorder is not None:
                self.recorder.start()
        except BaseException:
            self._entrance.close()
            await self._other_ports.close()
            raise

    def _add_metrics(self) -> Metrics:
        metrics = Metrics(self.reception, self.recorder)
        self.reception.routes.add("/metrics", metrics.page)
        return metrics

    def _state(self) -> str:
        """Where it listens, and how far it is."""
        if self._loading is None:
            return "not started"
        if self._stop.is_set():
            return f"{self.address.url} {'stopped' if self._has_ended else 'stopping'}"
        names = [text_of(served.label) for served in self.catalogue if served.spec is not None]
        if not names:
            return f"{self.address.url} {self.reception.stage}"
        count = len(self.reception.conversations)
        served = f"{self.address.url} serving {', '.join(names)}"
        return f"{served}, {count} session{'s' if count != 1 else ''}"

    def _connection(self) -> asyncio.BaseProtocol:
        self._numbers -= 1
        shared = self.reception, self.config, self.busy_poll, self._turns, self._scratch
        connection = Connection(self._numbers, *shared)
        return self._entrance.protocol_for(connection, self.reception)

    def _note_seen(self, seen: SeenPolicy) -> None:
        self.on_seen(seen)

    def _note_stage(self, served: Served, stage: str) -> None:
        if self.on_stage is not None:
            self.on_stage(stage)

    def _make_is_working(self) -> Callable[[], bool]:
        engines = [served.engine for served in self.catalogue]
        if len(engines) == 1:
            engine = engines[0]
            return lambda: engine.is_working
        return lambda: any(engine.is_working for engine in engines)

    def _note_failure(self, loading: asyncio.Task[PolicySpec]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            log.debug("loading failed: %s", error)


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


def _log_failed_observer(observer: Observer, error: BaseException) -> None:
    text, event = "%s is told nothing more, since it raised", Event("observer_failed")
    log.error(text, type(observer).__name__, event=event, cause=error)


def _log_seen(seen: SeenPolicy) -> None:
    event = Event("policy_spec_seen", policy=seen.name)
    log.info("%s declares no spec; it was seen to take and give %s", seen.name, seen, event=event)
