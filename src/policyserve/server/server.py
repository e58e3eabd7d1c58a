"""The server: joins its parts, and starts and stops them.

It listens at once and loads the policy behind; sessions that come early wait for it. A stopping server accepts
nobody, answers what is in flight, closes its sessions with 1001 and closes the policy.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from policyserve import dialects
from policyserve.core import memory
from policyserve.core.errors import ConfigError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observer, Observers
from policyserve.core.policy import as_policy
from policyserve.core.printable import text_of
from policyserve.core.recipe import Newest, Recipe
from policyserve.core.spec import PolicySpec
from policyserve.core.spec_from_values import SeenPolicy
from policyserve.engine.answering import LoadPolicy
from policyserve.engine.engine import Engine
from policyserve.engine.ready import PolicyPerSession, ReadyPolicy
from policyserve.engine.swapping import SwappingEngine
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
from policyserve.server.exchange_page import ExchangePage
from policyserve.server.following import Follower, Look
from policyserve.server.gr00t.port import Gr00tPort
from policyserve.server.lerobot_grpc.port import LeRobotPort
from policyserve.server.listener import Address
from policyserve.server.live import LivePage
from policyserve.server.metrics import Metrics
from policyserve.server.offers import Offer, make_catalogue
from policyserve.server.reception import Reception
from policyserve.server.served import Served
from policyserve.server.splits import Split
from policyserve.server.turns import LoopTurns
from policyserve.websocket.server_frames import make_scratch

log = Log(__name__)

Self = TypeVar("Self", bound="Server")

_GIVEN_BACK_EVERY_S = 1.0  # at most: whoever allocates waits meanwhile
_TIDY_S = 10.0
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
        self.reception.on_relief = self._give_back
        self.recorder = self._add_recorder() if self.config.record is not None else None
        self._metrics = self._add_metrics() if self.config.metrics else None
        self.live = LivePage(self.reception, self.observers, self.counters, self.config)
        if self.config.live:
            self.live.add_to(self.reception)
        self.find_policy: FindPolicy | None = None  # finds the policies that PUT /policies/NAME names
        self._add_exchange_pages()
        self.catalogue.check_taken(self.reception.routes.paths, ())
        self._may_give_back_at = 0.0
        self._entrance = Entrance(self.config, admission)
        # Where LeRobot's clients connect, if a port is set for them.
        has_port = self.config.lerobot is not None
        self.lerobot = LeRobotPort(self.config, self.reception, self.ready) if has_port else None
        if self.lerobot is not None:
            self.observers.add(self.lerobot)
        self.gr00t = Gr00tPort(self.config, self.reception) if self.config.gr00t is not None else None  # GR00T's
        self._numbers = 0  # of connections, below 0: sessions have numbers of their own
        self._loading: asyncio.Task[PolicySpec] | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._large_bytes = 0  # of large messages, when memory was looked after last
        self._has_given_back = True  # nothing large came since memory was given back
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()  # told to stop twice: don't wait for what is in flight
        self._has_ended = False
        self._follower: Follower | None = None  # of a training run

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

    def follow(self, look: Look, first: Newest, title: str = "", *, when: When = "now", every_s: float = 1.0) -> None:
        """Have each newer checkpoint of a training run take over from the default policy, from the server's start on.

        look: finds the newest, in a thread. first: what the server was given. title: of the run. Raises ConfigError
        where the policy cannot be exchanged.
        """
        served = self.catalogue.default
        engine, next_policy = swapping(served.engine, served.name), served.next_policy
        assert next_policy is not None, "it is there for what the catalogue has made"
        engine.title = f"{title} step {first.step}".strip()

        async def take(found: Newest) -> None:
            named = next_policy(found.recipe, f"{title} step {found.step}".strip())
            await engine.swap(named, Swap(when))

        def may_take() -> bool:
            return not engine.refusal() and not (when == "next-session" and engine.staying)

        self._follower = Follower(look, take, may_take, first, every_s)

    async def __aenter__(self: Self) -> Self:
        for fault in dialects.load_all():
            log.warning("%s", fault)
        self.catalogue.check_taken(self.reception.routes.paths, dialects.names())
        await self._entrance.open(self._connection)
        await self._start_beside()
        self._loading = asyncio.get_running_loop().create_task(self._load())
        self._loading.add_done_callback(self._note_failure)
        if self.lerobot is not None:
            await self.lerobot.start()
        self._tidy()
        self.statistics.start()
        if self._follower is not None:
            self._follower.start()
        if self._metrics is not None:
            self._metrics.lag.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._loading is not None
        self._stop.set()
        self._entrance.close()
        self.reception.close()
        for _ in range(3):
            # An accepted connection reaches connection_made() after up to three turns of asyncio's loop.
            await asyncio.sleep(0)
        for conversation in self.reception.conversations:
            conversation.drain()
        is_drained = await self._drain()
        for conversation in self.reception.conversations:
            conversation.leave(1001, "the server is stopping")
        await self._until_gone()
        if self.lerobot is not None:
            await self.lerobot.close()
        if self.gr00t is not None:
            await self.gr00t.close()
        self._loading.cancel()
        if self._tidying is not None:
            self._tidying.cancel()
        self.statistics.stop()
        if self._follower is not None:
            await self._follower.stop()
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

    def _add_exchange_pages(self) -> None:
        for served in self.catalogue:
            if isinstance(served.engine, SwappingEngine) and served.next_policy is not None:
                page = ExchangePage(served.name, served.engine, served.next_policy, lambda: self.find_policy)
                self.reception.routes.add(f"/policies/{served.name}", page.route)

    def _add_recorder(self) -> Recorder:
        plan = self.config.recording_plan
        assert plan is not None, "there is a directory"
        recorder = Recorder(plan)
        recorder.on_end = lambda: self.observers.remove(recorder)
        self.observers.add(recorder)
        return recorder

    def _check_keys(self) -> None:
        """Raise ConfigError if a policy is for keys that there are not."""
        known = self.reception.admission.keys.names
        for served in self.catalogue:
            strange = sorted(set(served.keys or ()) - known)
            if strange:
                there = ", ".join(sorted(known)) or "none, since --api-key-file names no file"
                told = f"policies.{served.name}.keys: no API key is named {strange[0]!r}"
                raise ConfigError(f"{told}; there are {there}")

    async def _start_beside(self) -> None:
        """Start what stands beside the listener, which is closed if that fails."""
        try:
            self._check_keys()
            if self.lerobot is not None:
                self.lerobot.bind()
            if self.gr00t is not None:
                await self.gr00t.open()
            if self.recorder is not None:
                self.recorder.start()
        except BaseException:
            self._entrance.close()
            for beside in (self.gr00t, self.lerobot):
                if beside is not None:
                    await beside.close()
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

    async def _load(self) -> PolicySpec:
        """Load all policies at once; returns the spec of the first that can be loaded, raises if none can."""
        if len(self.catalogue) == 1:
            return await self.catalogue.default.load()
        loaded = await asyncio.gather(*(self._load_beside(served) for served in self.catalogue), return_exceptions=True)
        specs = [one for one in loaded if isinstance(one, PolicySpec)]
        failures = [one for one in loaded if isinstance(one, BaseException)]
        if not specs:
            raise failures[0]
        return specs[0]

    async def _load_beside(self, served: Served) -> PolicySpec:
        """Load one of several; that it fails is told here, since the server goes on."""
        try:
            spec = await served.load()
        except Exception as error:  # a stranger's loader
            told = "policy %s cannot be loaded, its sessions are told so, and the others are served: %s"
            log.error(told, served.name, error, event=Event("failed", policy=served.name))
            log.debug("the traceback", cause=error)
            raise
        log.info("policy %s is ready", served.name, event=Event("ready", policy=served.name))
        return spec

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

    def _tidy(self) -> None:
        """Give back, once, the memory of a rush that is over; while large messages come they need it again at once."""
        is_quiet, self._large_bytes = self._large_bytes == self.reception.large_bytes, self.reception.large_bytes
        if not is_quiet:
            self._has_given_back = False
        elif not self._has_given_back:
            self._has_given_back = True
            self._give_back()
        self._tidying = asyncio.get_running_loop().call_later(_TIDY_S, self._tidy)

    def _give_back(self) -> None:
        """Give the kernel what is free, also when peers were ended for want of room: it lies between what is not."""
        now = time.monotonic()
        if now >= self._may_give_back_at:
            self._may_give_back_at = now + _GIVEN_BACK_EVERY_S
            # It takes some 10 ms for each 20 MiB, and lets go of the interpreter meanwhile.
            threading.Thread(target=memory.give_back, name="giving memory back", daemon=True).start()

    def _note_failure(self, loading: asyncio.Task[PolicySpec]) -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            log.debug("loading failed: %s", error)

    async def _drain(self) -> bool:
        """Wait for what is in flight, up to drain_s; returns whether all of it was answered."""
        drained = asyncio.ensure_future(self._drained())
        hurried = asyncio.ensure_future(self._hurry.wait())
        first = asyncio.FIRST_COMPLETED
        done, waiting = await asyncio.wait([drained, hurried], timeout=self.config.drain_s, return_when=first)
        for future in waiting:
            future.cancel()
        if drained not in done:
            log.warning("stopping with requests unanswered", event=Event("unanswered"))
        return drained in done

    async def _drained(self) -> None:
        await self.reception.decoder.drained()  # what it has decoded goes to the engine
        for served in self.catalogue:  # one by one: where nothing waits, this takes no turn of the loop
            await served.engine.drained()

    async def _until_gone(self) -> None:
        """Give peers a moment to answer the close frame, then cut what is left."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.reception.everybody_left.wait(), self.farewell_s)
        self.reception.abort_all()


class PolicyServer(Server):
    """Serve a policy that is there already: a Policy, an object with `infer(obs)`, or a function of one observation.

    host, port: instead of the config's, which are 0.0.0.0 and 8000 by default.
    factory: in place of a policy, a function that makes one for each session, which then has a memory of its own.
    Raises ConfigError for what cannot be served.
    """

    def __init__(
        self,
        policy: Any = None,
        host: str | None = None,
        port: int | None = None,
        *,
        config: ServerConfig | None = None,
        factory: Callable[[], Any] | None = None,
    ) -> None:
        if (policy is None) == (factory is None):
            raise ConfigError("policy, factory: expected one of the two")
        load = ReadyPolicy(as_policy(policy)) if factory is None else PolicyPerSession(factory)
        given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        super().__init__(load, replace(config or ServerConfig(), **given))

    async def swap(self, policy: Any, name: str | None = None, **how: Any) -> Swapped:
        """As Server.swap(); policy: also what the constructor takes, an object or a function."""
        is_loader = isinstance(policy, (Recipe, ReadyPolicy, PolicyPerSession))
        return await super().swap(policy if is_loader else ReadyPolicy(as_policy(policy)), name, **how)

    @property
    def _request_count(self) -> int:
        """Requests answered since the start; the founding document's name."""
        return self.counters.requests

    @property
    def _total_latency_ms(self) -> float:
        """Their latencies' sum; the founding document's name."""
        return self.counters.total_latency_ms


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
