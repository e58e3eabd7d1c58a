"""Real-time execution for programs without an event loop: a thread does what the state machine says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from policyserve.client.sync import Client
from policyserve.core.errors import BadAction, ConfigError, DeadlineExceeded
from policyserve.core.log import Log
from policyserve.realtime.machine import Realtime
from policyserve.realtime.options import (
    OWN_DEFAULTS,
    Callbacks,
    split_options,
    warn_of_another_kind,
    warn_of_single_actions,
)
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.values import Action, Ask, MergedChunk, RealtimeStatus, Renew, Rest, Step

if TYPE_CHECKING:
    from policyserve.core.arrays import Array

log = Log(__name__)

_CLOSE_S = 1.0
CLOSED = "no chunk comes any more: close() was called; make a new one"


class AskedServer(Protocol):
    """What RealtimeExecution asks: a Client, or anything with these. One thread calls it.

    infer() gives a map or a Reply with `actions`, (H, D) or (D,). sessions_opened: another number, another session.
    """

    sessions_opened: int

    @property
    def metadata(self) -> Mapping[str, Any]: ...
    def connect(self) -> None: ...
    def infer(self, observation: Any, /) -> Any: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


class RealtimeExecution:
    """Executes the chunks of a server, or of any policy, while a thread of its own asks for the next one.

    server: what that thread asks; nobody else may. on_state, on_error, on_chunk: see RealtimeClient.
    """

    def __init__(
        self,
        server: AskedServer,
        settings: RealtimeSettings,
        *,
        on_state: Callable[[str], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        on_chunk: Callable[[Any], None] | None = None,
    ) -> None:
        self._server = server
        self._callbacks = Callbacks(on_state, on_error, on_chunk)
        self._wakes, self._tells = threading.Event(), threading.Event()
        self._progress = threading.Condition()
        tell = self._tells.set if self._callbacks else None
        self._realtime = Realtime(settings, lock=threading.Lock(), wake=self._wakes.set, tell=tell)
        self._threads: list[threading.Thread] = []
        self._is_closing = False
        self._begins = threading.Lock()

    def observe(self, observation: Any) -> None:
        """Give the newest observation, from any thread and at any rate; the next request is made of it.

        observation: a map, as for Client.infer(); or a function without arguments that returns one, which the thread
        behind this object calls when a request is due. What is given is held and not copied: give new arrays each time.
        Raises what ended the asking for good, such as a refused observation or key, until reset(), and ConfigError
        after close(); never waits.
        """
        if self._is_closing:
            raise ConfigError(CLOSED)
        self._start()
        self._realtime.observe(observation, time.monotonic())

    def act(self, out: Array | None = None, now: float | None = None) -> Action:
        """The action that is due now. It never waits, and raises nothing but ConfigError for a wrong `out`.

        out: a writable array of floats (D,), into which the action is written, so that nothing is allocated for it; it
        is left as it is where there is no action. now: by time.monotonic(); None: now. At control_hz each call takes
        the next row; a quicker loop gets a row for its time, or what lies between rows with interpolate=True.
        """
        return self._realtime.act(time.monotonic() if now is None else now, out)

    def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until a first chunk is there; observe() must have been called, or be called meanwhile.

        Raises DeadlineExceeded, also where it was closed or stays stopped, or what ended the asking for good: a wrong
        key, an observation that the server refuses, actions of a kind that nobody knows.
        """
        self._start()
        with self._progress:
            self._progress.wait_for(lambda: self._is_closing or self._is_settled, timeout_s)
        failed = self._realtime.failed
        if failed is not None:
            raise failed.with_traceback(None)
        if not self._realtime.has_rows:
            raise not_ready(self._realtime.status(time.monotonic()), timeout_s, self._is_closing)

    def reset(self, keep_rows: bool = False) -> None:
        """Begin a new episode: nothing of what was observed, asked or answered before is executed; act() gives none.

        The server gets a new session, so that what its policy remembers ends. keep_rows: go on with the rows that are
        there and fade over into the next chunk, where the prompt changes for example. Give a new observation
        afterwards.
        """
        self._realtime.reset(time.monotonic(), keep_rows)

    def stop(self) -> None:
        """Hand out no action any more (source "stop"), and ask nothing, until resume() or reset()."""
        self._realtime.stop(time.monotonic())

    def resume(self) -> None:
        """Wait for a chunk of a new observation after a stop, the fallback's included; else it does nothing."""
        self._realtime.resume(time.monotonic())

    @property
    def status(self) -> RealtimeStatus:
        """A snapshot: state, latencies, counters, the last error."""
        return self._realtime.status(time.monotonic())

    @property
    def newest_chunk(self) -> MergedChunk | None:
        """The chunk that was merged last, with all that its answer carried; None before the first."""
        return self._realtime.newest_chunk

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said when the connection was opened; empty before."""
        return self._server.metadata

    def close(self) -> None:
        """End the thread and the connection. An answer under way is waited for up to a second, then left to itself."""
        with self._begins:
            self._is_closing = True
            threads, self._threads = self._threads, []
        self._realtime.stop(time.monotonic())
        self._wakes.set()
        self._tells.set()
        with self._progress:
            self._progress.notify_all()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(_CLOSE_S)

    def __enter__(self) -> Any:
        self._start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def _is_settled(self) -> bool:
        return self._realtime.has_rows or self._realtime.failed is not None

    def _start(self) -> None:
        """Start the threads when they are first needed."""
        if self._threads or self._is_closing:
            return
        with self._begins:
            if self._threads or self._is_closing:
                return
            targets = [self._work, *([self._tell_all] if self._callbacks else [])]
            self._threads = [threading.Thread(target=one, name="policyserve realtime", daemon=True) for one in targets]
            for thread in self._threads:
                thread.start()

    def _work(self) -> None:
        """Do the state machine's steps."""
        try:
            while not self._is_closing:
                self._wakes.clear()
                step = self._realtime.next_step(time.monotonic())
                if isinstance(step, Rest):
                    if not self._is_closing:
                        self._wakes.wait(step.seconds)
                    continue
                self._do(step)
                if self._is_settled:
                    with self._progress:
                        self._progress.notify_all()
        finally:
            self._end()

    def _do(self, step: Step) -> None:
        realtime, server = self._realtime, self._server
        try:
            if isinstance(step, Ask):
                reply = server.infer(step.observation)
                realtime.on_answer(step, actions_of(reply), time.monotonic(), reply)
                warn_of_single_actions(step, realtime.newest_chunk)
                return
            if isinstance(step, Renew):
                server.reset()
            else:
                server.connect()
            metadata, session = server.metadata, server.sessions_opened
        except Exception as error:  # whatever the other end, or somebody's policy, raises
            realtime.on_failure(step, error, time.monotonic())
            if realtime.failed is not None:
                log.error("real-time execution asks no more until reset(): %s", error)
            return
        if not self.status.sessions:
            warn_of_another_kind(realtime.settings.action_kind, metadata or {})
        realtime.on_connected(metadata or {}, time.monotonic(), session)

    def _end(self) -> None:
        try:
            self._server.close()
        except Exception as error:
            log.warning("the connection did not end well: %s", error)

    def _tell_all(self) -> None:
        """Call the user's functions, in a thread of their own: they may wait, and neither act() nor the asking may."""
        while not self._is_closing:
            self._tells.wait()
            self._tells.clear()
            self._callbacks.call(self._realtime.changes())


class RealtimeClient(RealtimeExecution):
    """Executes a server's chunks in real time: act() has an action while a thread asks for the next chunk.

    url: ws://host:port, wss://host:port or ws+unix:///path, of any server whose dialect `Client` speaks. control_hz:
    rows per second, what the policy was trained at; act() may be called faster. The other settings are those of
    RealtimeSettings (execution_horizon, rtc, blend_steps, fallback, action_kind, interpolate, …) and of Client
    (dialect, api_key, ssl_context, timeout_s, …), by name. Chunks are spliced by what was executed and fade in; where
    the server's spec has RTC it is told what the robot will execute. A connection that ends is opened anew while rows
    go on.

    dead_after_s: a server of which nothing is heard for so long while it owes an answer, no pong either, counts as
    gone, once it has answered a first time. on_state(state): called when the state changes: WAITING, STREAMING,
    DEGRADED, HOLDING, STOPPED. on_error(error): called when something failed; where the same error comes again, as with
    each attempt to reach a server that is away, once until a usable answer or reset(). on_chunk(MergedChunk): called
    when a chunk was merged. All are called in a thread of their own, in order.

    A server that does not say what its actions are needs action_kind="position" (or velocity, delta, torque) or a
    fallback, since to hold a velocity is a runaway: else ConfigError, by observe() and wait_until_ready(). Raises
    ConfigError for a wrong argument. It connects when it is entered as a context, or first used.
    """

    def __init__(
        self,
        url: str,
        *,
        control_hz: float,
        on_state: Callable[[str], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        on_chunk: Callable[[Any], None] | None = None,
        **options: Any,
    ) -> None:
        settings, of_client = split_options(type(self).__name__, control_hz, options)
        client = Client(url, **{**OWN_DEFAULTS, **of_client})
        self._client = client
        super().__init__(client, settings, on_state=on_state, on_error=on_error, on_chunk=on_chunk)

    def __repr__(self) -> str:
        return f"<policyserve.{type(self).__name__} {self.url}, {self.status.state}>"

    @property
    def url(self) -> str:
        """The server's URL, with the path that is asked for and without a password."""
        return self._client.url


def actions_of(reply: Any) -> Any:
    """The actions of a reply: a Reply's, or a map's; raises BadAction where there are none."""
    found = getattr(reply, "actions", None)
    if found is not None:
        return found
    if isinstance(reply, Mapping) and "actions" in reply:
        return reply["actions"]
    got = f"keys {', '.join(map(str, reply))}" if isinstance(reply, Mapping) else type(reply).__name__
    raise BadAction(f'infer: expected a map with "actions", or a Reply, got {got:.80}')


def not_ready(status: RealtimeStatus, timeout_s: float, is_closed: bool) -> DeadlineExceeded:
    """Why no chunk is there."""
    if is_closed:
        return DeadlineExceeded(CLOSED)
    if status.state == "STOPPED":
        why = "it is stopped; call resume() or reset(), then observe()"
    else:
        why = status.error or _missing(status)
    return DeadlineExceeded(f"no chunk within {timeout_s:g} s: {why}")


def _missing(status: RealtimeStatus) -> str:
    if status.requests:
        return "no answer came"
    return "observe() has given nothing to ask with" if status.is_connected else "the connection is not open yet"
