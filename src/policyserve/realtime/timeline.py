"""The rows that a robot will execute, by plan step: merging by what was consumed, blending, ageing. Pure.

A plan step is the number of a row. It goes up by one for each row that is handed out, and not while the robot holds, so
that a chunk is spliced where the robot is in it, whatever the clock says.

What must stay true: a segment that is in use does not change. build() writes into one that nobody reads, and lay() puts
it to use. One thread builds; others may read the rows in use meanwhile. Two segments of four chunks' length are used in
turn, so that nothing is allocated once the longest chunk has come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadAction
from policyserve.realtime.combining import REPLACE, Ensemble, fade_shares, join

OnRows = Callable[[Array], Array]


class Chunk(NamedTuple):
    """Rows (H, D) of an answer, row i for plan step first + i. observed_at: when its observation was taken."""

    rows: Array
    first: int
    observed_at: float


class Joining(NamedTuple):
    """How a chunk joins.

    blend_steps: over which it fades in. sent: the action that was sent last, from which it fades
    where no old row is; None: none was. on_rows: the user's last word on the rows. pinned: rows from the plan step on
    that stay as they are, since an interpolated motion is on its way to them.
    """

    blend_steps: int = 0
    how: str | Ensemble = REPLACE
    sent: Array | None = None
    on_rows: OnRows | None = None
    pinned: int = 0


class Segment:
    """Rows for the plan steps first … end − 1; of these, those before fades_until are blended."""

    __slots__ = ("chunks", "end", "fades_until", "first", "observed_at", "rows")

    def __init__(self, capacity: int, width: int, dtype: np.dtype) -> None:  # type: ignore[type-arg]
        self.rows: Array = np.zeros((capacity, width), dtype)
        self.observed_at: Array = np.zeros(capacity)
        self.chunks: Array = np.zeros(capacity, np.int64)  # how many each row is made of
        self.first = self.end = self.fades_until = 0


class Timeline:
    """The rows in use. plan_step: of the row that is handed out next. width: numbers in an action, None: not known."""

    def __init__(self) -> None:
        self.plan_step = 0
        self.newest_first: int | None = None  # plan step at which the newest chunk was observed
        self.width: int | None = None
        self._used: Segment | None = None
        self._both: list[Segment] = []

    @property
    def left(self) -> int:
        """Rows from the plan step on."""
        used = self._used
        return 0 if used is None else max(0, used.end - self.plan_step)

    def has(self, step: int) -> bool:
        """Whether there is a row for a plan step."""
        used = self._used
        return used is not None and used.first <= step < used.end

    def row(self, step: int) -> Array:
        """The row of a plan step that is there: a view, which the next but one lay() changes."""
        assert self._used is not None
        row: Array = self._used.rows[step - self._used.first]
        return row

    def observed_at(self, step: int) -> float:
        """When the newest observation was taken that the row rests on."""
        assert self._used is not None
        return float(self._used.observed_at[step - self._used.first])

    def is_blended(self, step: int) -> bool:
        return self._used is not None and step < self._used.fades_until

    def rows_from(self, step: int) -> Array:
        """A copy of the rows from a plan step on, executed ones among them where they are still known: (n, D)."""
        used = self._used
        if used is None or step < used.first or step >= used.end:
            return np.zeros((0, self.width or 0))
        return used.rows[step - used.first : used.end - used.first].copy()

    def clear(self) -> None:
        """Forget all rows; the plan step stays."""
        self._used = None

    def forget(self) -> None:
        """Forget all rows and what an action is: the next ones may be another policy's."""
        self._used = self.newest_first = self.width = None
        self._both = []

    def build(self, chunk: Chunk, joining: Joining, step: int) -> Segment | None:
        """What the rows are once a chunk has joined at a plan step; None: all of the chunk's rows are past.

        Raises BadAction for rows of another width, and what on_rows raises.
        """
        used, width = self._used, chunk.rows.shape[1]
        if self.width not in (None, width):
            raise BadAction(f"actions: expected {self.width} numbers each, as before, got {width}")
        old_end = step if used is None else max(used.end, step)
        first = min(chunk.first, old_end)  # a row for later than the old rows reach comes at once
        start = max(first, min(step + joining.pinned, old_end))
        end = first + len(chunk.rows)
        if start >= end:
            return None
        kept_first = start if used is None else min(max(used.first, step - len(chunk.rows)), start)
        made = self._room(used, end - kept_first, chunk.rows)
        made.first, made.end, made.fades_until = kept_first, end, start
        if used is not None and kept_first < start:
            _copy(used, made, kept_first, start)
        _join(used, made, start, chunk.rows[start - first :], joining)
        made.observed_at[start - kept_first : end - kept_first] = chunk.observed_at
        return made

    def lay(self, made: Segment, newest_first: int) -> None:
        """Use the rows that build() has made. newest_first: of their chunk."""
        self._used, self.newest_first, self.width = made, newest_first, made.rows.shape[1]

    def _room(self, used: Segment | None, count: int, like: Array) -> Segment:
        """A segment for so many rows that nobody reads."""
        for one in self._both:
            if one is not used and len(one.rows) >= count and one.rows.shape[1] == like.shape[1]:
                return one
        dtype = np.result_type(like.dtype, np.float32) if used is None else used.rows.dtype
        made = Segment(max(count, 4 * len(like)), like.shape[1], dtype)
        self._both = [made] if used is None else [used, made]
        return made


def _join(used: Segment | None, made: Segment, start: int, new: Array, joining: Joining) -> None:
    """Write the rows from `start` on, each joined with the one that was there."""
    count = len(new)
    place = slice(start - made.first, start - made.first + count)
    made.rows[place] = new
    made.chunks[place] = 1
    rows = made.rows[place]
    known = 0 if used is None else max(0, min(used.end - start, count))  # new rows for which there is an old one
    if used is not None and known:
        old = slice(start - used.first, start - used.first + known)
        if joining.how != REPLACE:
            rows[:known] = join(joining.how, used.rows[old], rows[:known], used.chunks[old])
            made.chunks[place.start : place.start + known] += used.chunks[old]
    fading = min(joining.blend_steps, count if joining.sent is not None else known)
    if fading:
        shares = fade_shares(joining.blend_steps)[:fading, None]
        before = np.empty((fading, rows.shape[1]))
        before[min(known, fading) :] = 0 if joining.sent is None else joining.sent
        if used is not None and known:
            before[:known] = used.rows[start - used.first : start - used.first + min(known, fading)]
        rows[:fading] = shares * before + (1 - shares) * rows[:fading]
        made.fades_until = start + fading
    if joining.on_rows is not None:
        rows[:] = _checked(joining.on_rows(rows.copy()), rows)


def _copy(used: Segment, made: Segment, first: int, end: int) -> None:
    """Take rows of the segment in use over."""
    source, target = slice(first - used.first, end - used.first), slice(first - made.first, end - made.first)
    made.rows[target] = used.rows[source]
    made.observed_at[target] = used.observed_at[source]
    made.chunks[target] = used.chunks[source]


def _checked(given: object, rows: Array) -> Array:
    """What on_action gave back, if it can take the rows' place."""
    if given is None:
        raise BadAction(f"on_action: expected the rows that are to be executed, {rows.shape}, got None: return them")
    array: Array = np.asarray(given)
    if array.shape != rows.shape or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        got = f"{array.dtype} {array.shape}" if array.shape != rows.shape else "values that are no finite numbers"
        raise BadAction(f"on_action: expected as many rows as it was given, {rows.shape}, got {got}")
    return array
