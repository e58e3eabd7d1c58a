"""The robot's side: which action is due now, and what the robot gets when none is. Pure; time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.realtime.cadence import Cadence
from policyserve.realtime.ladder import Ladder, Rung
from policyserve.realtime.timeline import Chunk, Joining, Timeline
from policyserve.realtime.values import Action, MotionState, Source


class Motion:
    """Hands out the rows of a timeline, and the fallback's actions where it has none.

    period_s: a row's time. max_age_s: of a row's observation; None: any. interpolated: which numbers of an action move
    linearly between rows; None: none do. Counts starved_steps: periods for which no row was there.
    """

    def __init__(self, period_s: float, max_age_s: float | None, interpolated: bool | Sequence[int]) -> None:
        self.timeline = Timeline()
        self.ladder: Ladder | None = None  # until it is known what an action is
        self.starved_steps = 0
        self.is_stopped = False
        self._max_age_s = max_age_s
        self._interpolated = interpolated
        self.has_turned = True  # the last act() took a row, or found none: else a row went on
        self._cadence = Cadence(period_s)
        self._is_in_row = False  # the row before the plan step is being executed
        self._without_since: float | None = None
        self._sent: Array | None = None  # the last action, whatever it came from
        self._held: Array | None = None  # the last action when rows ended
        self._has_moved = False
        self._scratch: Array | None = None
        self._fitting: Array | None = None  # the caller's array that was found to fit

    @property
    def pinned(self) -> int:
        """Rows from the plan step on that a merge must leave, since an interpolated motion is on its way to them."""
        return int(self._interpolated is not False and self._is_in_row)

    @property
    def sent(self) -> Array | None:
        """A copy of the action that was sent last; None: none since the last reset."""
        return self._sent.copy() if self._has_moved and self._sent is not None else None

    def state(self, now: float) -> MotionState:
        """WAITING, STREAMING, HOLDING or STOPPED."""
        if self.is_stopped:
            return "STOPPED"
        if self._without_since is not None and not self._has_row(now):
            return "HOLDING"
        return "STREAMING" if self._has_moved or self._has_row(now) else "WAITING"

    def act(self, now: float, out: Array | None) -> Action:
        """The action that is due."""
        is_time = self._cadence.is_time(now)
        step = self.timeline.plan_step
        if self._is_in_row and not is_time and self._is_young(step - 1, now):
            self.has_turned = False
            return self._row(step - 1, now, out)
        self.has_turned = True
        if self.is_stopped:
            return self._without("stop")
        if self._has_row(now):
            self._cadence.begin(now)
            self.timeline.plan_step = step + 1
            self._is_in_row = self._has_moved = True
            self._without_since = None
            return self._row(step, now, out)
        return self._fall_back(now, is_time, out)

    def stop(self) -> None:
        """No action any more, until forget()."""
        self.is_stopped = True
        self._end_rows()

    def forget(self) -> None:
        """Wait for a first chunk, as in the beginning; plan steps go on."""
        self._end_rows()
        self.timeline.forget()
        self.is_stopped = self._has_moved = False
        self._sent = self._held = self._scratch = self._without_since = self._fitting = None

    def joining(self, like: Joining) -> Joining:
        """How a chunk joins at this moment."""
        return like._replace(sent=self.sent, pinned=self.pinned)

    def dims_error(self, chunk: Chunk) -> ConfigError | None:
        """What is wrong with the numbers to interpolate, now that a first chunk tells how many an action has."""
        width = chunk.rows.shape[1]
        if isinstance(self._interpolated, bool) or self.timeline.width is not None:
            return None
        beyond = [one for one in self._interpolated if one >= width]
        told = f"interpolate_dims: expected 0 … {width - 1}, since an action has {width} values, got {beyond}"
        return ConfigError(told) if beyond else None

    def make_room(self, chunk: Chunk) -> None:
        """Make room for actions of a chunk's width."""
        width = chunk.rows.shape[1]
        if self._sent is None or len(self._sent) != width:
            dtype = np.result_type(chunk.rows.dtype, np.float32)
            self._sent, self._held, self._scratch = (np.zeros(width, dtype) for _ in range(3))

    def _end_rows(self) -> None:
        self.timeline.clear()
        self._is_in_row = False

    def _has_row(self, now: float) -> bool:
        step = self.timeline.plan_step
        return self.timeline.has(step) and self._is_young(step, now)

    def _is_young(self, step: int, now: float) -> bool:
        if self._max_age_s is None:
            return self.timeline.has(step)
        return self.timeline.has(step) and now - self.timeline.observed_at(step) <= self._max_age_s

    def _row(self, step: int, now: float, out: Array | None) -> Action:
        timeline = self.timeline
        source: Source = "blend" if timeline.is_blended(step) else "chunk"
        value = timeline.row(step)
        if self._interpolated is not False and timeline.has(step + 1):
            value = self._between(value, timeline.row(step + 1), self._cadence.fraction(now))
        values = self._given(value, out)
        return Action(values, source, max(now - timeline.observed_at(step), 0.0), step)

    def _between(self, row: Array, following: Array, fraction: float) -> Array:
        """The action on the way from a row to the next."""
        value = self._scratch
        assert value is not None
        np.subtract(following, row, out=value)
        value *= fraction
        value += row
        if self._interpolated is not True:  # the others take the row as it is
            moving = value[self._interpolated]
            value[:] = row
            value[self._interpolated] = moving
        return value

    def _fall_back(self, now: float, is_time: bool, out: Array | None) -> Action:
        """There is no row, or none that is young enough."""
        self._end_rows()
        if not self._has_moved:
            return self._without("none")
        if self._without_since is None:
            self._without_since = now
            assert self._held is not None
            self._held[:] = self._sent
        if is_time:
            self._cadence.begin(now)
            self.starved_steps += 1
        assert self.ladder is not None
        rung, elapsed_s = self.ladder.at(now - self._without_since)
        if rung.name == "stop":
            self.stop()
            return self._without("stop")
        return self._of_rung(rung, elapsed_s, out)

    def _of_rung(self, rung: Rung, elapsed_s: float, out: Array | None) -> Action:
        assert self._held is not None
        if rung.name == "zero":
            return Action(self._given(np.zeros_like(self._held), out), "zero", 0.0, self.timeline.plan_step)
        share = 1 - elapsed_s / rung.seconds if rung.name == "decay" else 1.0
        return Action(self._given(self._held * share, out), "hold", 0.0, self.timeline.plan_step)

    def _without(self, source: Source) -> Action:
        return Action(None, source, 0.0, self.timeline.plan_step)

    def _given(self, value: Array, out: Array | None) -> Array:
        """The caller's array with this action in it; it is the last one that was sent from now on."""
        assert self._sent is not None
        self._sent[:] = value
        if out is None:
            return value.copy()
        if out is not self._fitting:
            _check_out(out, value)
            self._fitting = out
        out[...] = value
        return out


def _check_out(out: Any, value: Array) -> None:
    is_fine = isinstance(out, np.ndarray) and out.shape == value.shape and out.dtype.kind == "f" and out.flags.writeable
    if not is_fine:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ConfigError(f"act(out=): expected a writable array of floats of the shape {value.shape}, got {got}")
