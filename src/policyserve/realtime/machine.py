"""Real-time execution of action chunks as a state machine: no thread, no socket, no clock of its own.

The robot's side calls observe() and act(), from any thread. The worker's side asks next_step() what to do, does it and
tells what came of it: on_connected(), on_answer(), on_failure(). Time is an argument of each, in seconds of one
monotonic clock; in a simulation it may be step / control_hz.

What must stay true: nothing is computed while the lock is held but what act() itself needs, so that the robot waits for
no merge. Only the worker's side builds rows.
"""

from __future__ import annotations

import random as random_numbers
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import BadAction, ConfigError, PolicyserveError
from policyserve.core.printable import error_text
from policyserve.realtime.cadence import ForwardClock
from policyserve.realtime.combining import REPLACE
from policyserve.realtime.ladder import ladder_for, read_kind
from policyserve.realtime.motion import Motion
from policyserve.realtime.pacing import delay_steps, is_due
from policyserve.realtime.prefix import action_kind_of, leaves_of, method_of, read_offer, with_leaves
from policyserve.realtime.requests import Requests, Seen, as_ours
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.timeline import Chunk, Joining
from policyserve.realtime.values import (
    Action,
    Ask,
    Connect,
    MergedChunk,
    MotionState,
    RealtimeStatus,
    Renew,
    Rest,
    Step,
)

Change: TypeAlias = MotionState | PolicyserveError | MergedChunk

_REBUILDS = 2  # times that a chunk is joined anew because the robot took a row meanwhile
_MOST_CHANGES = 100


class Realtime:
    """Executes chunks: merges answers into a timeline by what was consumed, paces requests, falls back without rows.

    lock: held for the moments in which what both sides use changes. wake: called when the worker may have something to
    do; tell: when changes() has something, which is kept for it alone; both from whichever thread. random: numbers from
    0 to 1. newest_chunk: the one that was merged last; None before the first.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        *,
        lock: AbstractContextManager[Any] | None = None,
        wake: Callable[[], None] = lambda: None,
        tell: Callable[[], None] | None = None,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self.settings = settings
        self._lock = nullcontext() if lock is None else lock
        self._wake, self._tell = wake, tell
        self._clock = ForwardClock(settings.period_s)
        self._motion = Motion(settings.period_s, settings.max_action_age_s, settings.moving)
        self._requests = Requests(settings.period_s, random)
        self._changes: deque[Change] = deque(maxlen=_MOST_CHANGES)
        self._told_state: MotionState = "WAITING"
        self._told_error: str | None = None  # the one that was told last, while nothing has been well since
        self._is_renewing = False
        self.newest_chunk: MergedChunk | None = None
        self._prefix_epoch = 0  # whose rows may be a request's prefix
        kind = read_kind(settings.action_kind)
        if kind is not None or settings.fallback is not None:
            self._motion.ladder = ladder_for(kind, settings.ladder)

    # The robot's side

    def observe(self, observation: Any, now: float) -> None:
        """Give the newest observation: the next request is made of it. A callable is called when a request is due.

        It is held and not copied: its arrays must not change until the next call. Raises what ended the asking for good
        (a refused observation or key, say), until reset().
        """
        with self._lock:
            failed = self._requests.failed
            if failed is None:
                self._requests.see(observation, self._motion.timeline.plan_step, self._clock.at(now))
        if failed is not None:
            raise failed.with_traceback(None)
        self._wake()

    def act(self, now: float, out: Array | None = None) -> Action:
        """The action that is due now; it waits for nothing and raises nothing, but ConfigError for a wrong `out`.

        out: a writable array of floats for the action, so that nothing is allocated for it. It is left as it is where
        there is no action.
        """
        with self._lock:
            time = self._clock.at(now)
            action = self._motion.act(time, out)
            if not self._motion.has_turned:
                return action
            state = self._state(time)
            has_changed, self._told_state = state != self._told_state, state
            # Only with a horizon does a row that was taken make a request due.
            wakes = has_changed or (self.settings.execution_horizon is not None and self._is_to_be_asked())
        if has_changed:
            self._told(state)
        if wakes:
            self._wake()
        return action

    def reset(self, now: float, keep_rows: bool = False) -> None:
        """A new episode: what was observed, asked or answered before counts no more, and the server's session is new.

        keep_rows: go on with the rows that are there, and fade over into the next chunk, where a prompt changes for
        example. Give a new observation afterwards. Asking begins anew where it had ended.
        """
        with self._lock:
            self._clock.at(now)
            self._requests.begin_epoch()
            self._requests.reset_failure()
            self._told_error = None
            if not keep_rows or self._motion.is_stopped:
                self._motion.forget()
        self._wake()

    def stop(self, now: float) -> None:
        """Hand out no action any more, and ask nothing, until resume() or reset()."""
        with self._lock:
            self._clock.at(now)
            self._requests.begin_epoch()
            self._motion.stop()
        self._wake()

    def resume(self, now: float) -> None:
        """Wait for a chunk of a new observation after a stop. The server's session begins anew, as for reset()."""
        with self._lock:
            self._clock.at(now)
            is_stopped = self._motion.is_stopped
            if is_stopped:
                self._requests.begin_epoch()
                self._motion.forget()
        if is_stopped:
            self._wake()

    def status(self, now: float) -> RealtimeStatus:
        """A snapshot."""
        with self._lock:
            time = self._clock.at(now)
            requests, timeline = self._requests, self._motion.timeline
            p50, p99, longest = requests.latencies.told()
            return RealtimeStatus(
                state=self._state(time),
                plan_step=timeline.plan_step,
                rows_left=timeline.left,
                delay_steps=self._delay(timeline.plan_step),
                latency_p50_s=p50,
                latency_p99_s=p99,
                latency_max_s=longest,
                starved_steps=self._motion.starved_steps,
                is_connected=requests.is_connected,
                is_overdue=requests.is_overdue(time, self.settings.request_timeout_s),
                rtc=None if requests.offer is None else requests.method or requests.offer.method,
                error=requests.error,
                failed=requests.failed,
                **vars(requests.counts),
            )

    @property
    def has_rows(self) -> bool:
        """Whether a chunk is there to begin with."""
        return self._motion.timeline.left > 0

    @property
    def failed(self) -> PolicyserveError | None:
        """What ended the asking for good, until reset()."""
        return self._requests.failed

    def changes(self) -> list[Change]:
        """What happened since the last call, oldest first: new states, errors, merged chunks; at most a hundred.

        An error that is the same as the one before it is there once, until an answer comes that can be used, or until
        reset().
        """
        told: list[Change] = []
        while self._changes:  # others may add to them meanwhile
            told.append(self._changes.popleft())
        return told

    # The worker's side

    def next_step(self, now: float) -> Step:
        """What to do now. A step but Rest is to be done before the next call, and its outcome told."""
        with self._lock:
            time = self._clock.at(now)
            seen = self._seen_if_due(time)
            if not isinstance(seen, Seen):
                self._is_renewing = isinstance(seen, Renew)
                return seen
            first = self._motion.timeline.plan_step if callable(seen.observation) else seen.plan_step
            at = time if callable(seen.observation) else seen.at
            rows = self._known_rows(first)
            delay = min(self._delay(first), len(rows))
        try:
            observation = self._observed(seen, rows[:delay])
        except Exception as error:  # the user's functions
            return self._not_observed(as_ours(error, "a function for observations"), now)
        if self.settings.roll_state is not None:
            first, rows, delay = first + delay, rows[delay:], 0
        leaves = self._leaves(rows, delay)
        with self._lock:
            number = self._requests.counts.requests + 1
            sent = with_leaves(observation, leaves) if leaves else observation
            known = int(leaves["rtc/prev_length"]) if leaves else None
            ask = Ask(number, self._requests.epoch, sent, first, at, time, delay, known)
            self._requests.sent(ask, seen)
        return ask

    def on_connected(self, metadata: Mapping[str, Any], now: float, session: int | None = 1) -> None:
        """Connect or Renew is done. metadata: the greeting. session: the connection's number: another, another session.

        What a server cannot do that was required ends the asking: see `failed`.
        """
        with self._lock:
            self._clock.at(now)
            is_new = self._requests.opened(None if self._is_renewing else session)
            self._is_renewing = False
        if not is_new:
            return
        try:
            self._agree(metadata)
        except ConfigError as error:
            self._end(error, is_agreed=False)

    def on_answer(self, ask: Ask, actions: Any, now: float, fields: Any = None) -> None:
        """An answer came. actions: (H, D), or (D,) for one action. fields: all that it carried."""
        with self._lock:
            time = self._clock.at(now)
            if not self._requests.answered(ask, time):
                return
            self._note_method(ask, fields)
        try:
            chunk = Chunk(_rows_of(actions), ask.first, ask.observed_at)
            mistake = self._motion.dims_error(chunk)
            merged = self._merge(chunk, ask, fields) if mistake is None else None
        except Exception as error:  # NaN, another width, or the user's on_action
            self._bad_answer(as_ours(error, "on_action"), time)
            return
        if mistake is not None:
            self._end(mistake)
            return
        self._told_error = None
        if merged is not None:
            self._told(merged)

    def on_failure(self, step: Step, error: BaseException, now: float) -> None:
        """A step could not be done."""
        ours = as_ours(error, "asking the server or policy")
        with self._lock:
            self._requests.failure(step, ours, self._clock.at(now))
        self._told(ours)

    # Both sides

    def _told(self, change: Change) -> None:
        if self._tell is None:
            return
        if isinstance(change, PolicyserveError):
            text = f"{change.code}: {change}"
            if text == self._told_error:  # a server that is away fails each attempt in the same way
                return
            self._told_error = text
        self._changes.append(change)
        self._tell()

    def _state(self, time: float) -> MotionState:
        state = self._motion.state(time)
        requests = self._requests
        if state == "STREAMING" and (
            requests.is_troubled
            or requests.failed is not None
            or requests.is_overdue(time, self.settings.request_timeout_s)
        ):
            return "DEGRADED"
        return state

    def _delay(self, first: int) -> int:
        """Rows from `first` on that will have run before an answer comes."""
        requests, timeline, settings = self._requests, self._motion.timeline, self.settings
        if settings.inference_delay is not None:
            expected = int(settings.inference_delay)
        else:
            expected = delay_steps(requests.latencies.longest_s, settings.control_hz, self._motion.pinned)
        return min(max(expected, timeline.plan_step - first), timeline.left + timeline.plan_step - first)

    # The worker's side, within

    def _seen_if_due(self, time: float) -> Seen | Step:
        """What to ask with; or what comes first."""
        requests = self._requests
        if requests.failed is not None or requests.in_flight is not None:
            return Rest(None)
        if time < requests.back_off.until:
            return Rest(requests.back_off.until - time)
        if not requests.is_connected:
            return Connect()
        if self._motion.is_stopped:
            return Rest(None)
        if requests.wants_renewal:
            return Renew()
        if not self._is_to_be_asked():
            return Rest(None)
        if not requests.is_checked:
            return Connect()
        assert requests.seen is not None
        return requests.seen

    def _is_to_be_asked(self) -> bool:
        """Whether there is something to ask, and it is time."""
        if self._requests.in_flight is not None or not self._requests.has_news:
            return False
        timeline, settings = self._motion.timeline, self.settings
        executed = timeline.plan_step - (timeline.newest_first or 0)
        expected = delay_steps(self._requests.latencies.longest_s, settings.control_hz, self._motion.pinned)
        horizon = None if settings.execution_horizon is None else int(settings.execution_horizon)
        return is_due(horizon, executed, timeline.left, expected)

    def _known_rows(self, first: int) -> Array:
        """The rows that the robot executes from a step on, those of another prompt left out."""
        timeline = self._motion.timeline
        is_ours = self._prefix_epoch == self._requests.epoch
        return timeline.rows_from(first) if is_ours else np.zeros((0, timeline.width or 0))

    def _observed(self, seen: Seen, running: Array) -> Any:
        observation: Any = seen.observation() if callable(seen.observation) else seen.observation
        roll = self.settings.roll_state
        return observation if roll is None or not len(running) else roll(observation, running)

    def _not_observed(self, error: PolicyserveError, now: float) -> Rest:
        with self._lock:
            time = self._clock.at(now)
            self._requests.error, self._requests.is_troubled = str(error), True
            self._requests.back_off.refused(time, "")
            pause_s = self._requests.back_off.until - time
        self._told(error)
        return Rest(pause_s)

    def _leaves(self, rows: Array, delay: int) -> dict[str, Any]:
        offer = self._requests.offer
        if offer is None:
            return {}
        end = self.settings.prefix_attention_horizon
        return leaves_of(offer, rows, delay, None if end is None else int(end))

    def _agree(self, metadata: Mapping[str, Any]) -> None:
        """Take from a greeting what the server can do; raises ConfigError."""
        settings = self.settings
        told = settings.action_kind if settings.action_kind is not None else action_kind_of(metadata)
        ladder = ladder_for(read_kind(told, "the server's action_kind"), settings.ladder)
        offer = read_offer(metadata, settings.rtc if settings.joins == REPLACE else "off")
        with self._lock:
            self._motion.ladder, self._requests.offer, self._requests.method = ladder, offer, None

    def _note_method(self, ask: Ask, fields: Any) -> None:
        if ask.prefix_rows is None:
            return
        told, offer = method_of(fields), self._requests.offer
        self._requests.method = told or self._requests.method
        if told is None and offer is not None and offer.echoes:
            self._requests.counts.rtc_missing += 1

    def _merge(self, chunk: Chunk, ask: Ask, fields: Any) -> MergedChunk | None:
        """Join a chunk to the rows; None: nothing of it is used. Raises BadAction, and what on_action raises."""
        motion, counts = self._motion, self._requests.counts
        timeline = motion.timeline
        has_rtc = ask.prefix_rows is not None and self._requests.method is not None
        settings = self.settings
        like = Joining(settings.blend(has_rtc), settings.joins, None, settings.on_action)
        for attempt in range(_REBUILDS + 1):
            with self._lock:
                joining, step = motion.joining(like), timeline.plan_step
                if timeline.newest_first is not None and ask.first < timeline.newest_first:
                    counts.superseded += 1
                    return None
            made = timeline.build(chunk, joining, step)
            with self._lock:
                if ask.epoch != self._requests.epoch:  # a reset or a stop came meanwhile
                    counts.stale += 1
                    return None
                if made is None:
                    counts.expired += 1
                    return None
                if timeline.plan_step != step and attempt < _REBUILDS:
                    continue
                motion.make_room(chunk)
                timeline.lay(made, ask.first)
                self._prefix_epoch = ask.epoch
                counts.chunks += 1
                counts.late += timeline.plan_step - ask.first > ask.delay
                if self._requests.offer is not None:
                    self._requests.offer = self._requests.offer.sized(*chunk.rows.shape)
                self.newest_chunk = MergedChunk(ask.first, chunk.rows, fields)
                return self.newest_chunk
        raise AssertionError("not reached")

    def _end(self, error: ConfigError, is_agreed: bool = True) -> None:
        """Ask no more until a reset, because of a mistake of the user's."""
        with self._lock:
            self._requests.end(error, is_agreed=is_agreed)
        self._told(error)

    def _bad_answer(self, error: PolicyserveError, time: float) -> None:
        with self._lock:
            self._requests.bad_answer(error, time)
        self._told(error)


def _rows_of(actions: Any) -> Array:
    """Actions as rows (H, D); raises BadAction."""
    try:
        array: Array = np.asarray(actions)
    except ValueError as error:
        raise BadAction(f"actions: expected an array of numbers, got {error_text(error)}") from error
    if array.ndim < 2:
        array = array.reshape(1, -1)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "biuf":
        raise BadAction(f"actions: expected rows of numbers, (H, D), got {describe(array.dtype, array.shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadAction("actions: expected finite numbers, got NaN or Inf")
    return array
