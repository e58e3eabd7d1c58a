"""What real-time execution hands out: actions, snapshots of its state, and the steps of the work behind it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from policyserve.core.arrays import Array
from policyserve.core.errors import PolicyserveError

Source: TypeAlias = Literal["chunk", "blend", "hold", "zero", "stop", "none"]
MotionState: TypeAlias = Literal["WAITING", "STREAMING", "DEGRADED", "HOLDING", "STOPPED"]


class Action(NamedTuple):
    """What the robot is to do now.

    values: one action, (D,), an array of the caller's own, or `out`; None where the robot is to keep what it does
    (source none) or to stop (source stop). source: chunk: a row as the policy gave it; blend: a row that fades from the
    chunk before; hold: no row is left, the last action, also one that decays; zero: no row is left, zeros. age_s: the
    time since the observation that the row rests on; 0 without a row. plan_step: the row's number, which goes up by one
    with each row that is handed out, and not while the robot holds.
    """

    values: Array | None
    source: Source
    age_s: float
    plan_step: int


@dataclass(frozen=True)
class RealtimeStatus:
    """A snapshot of real-time execution; counters count from the beginning.

    state: WAITING: no chunk came yet; STREAMING: rows are executed; DEGRADED: so they are, but a request is overdue or
    was refused, or the connection is down; HOLDING: no row is left, the fallback runs; STOPPED: the fallback has ended,
    or stop() was called. delay_steps: rows that the next request expects to run before its answer comes. latency_…_s:
    from an observation to its chunk, of the last hundred; 0 without any. chunks: that were merged. late: of these,
    later than expected. starved_steps: periods for which no row was there. superseded: chunks older than one that was
    merged before. expired: chunks none of whose rows was due any more. stale: answers to requests from before a reset
    or a stop, or that came twice. bad_answers: with NaN or Inf, or of another shape. refused: requests that the server
    did not take, or that got lost. sessions: connections that were opened. rtc: the server's method, "guided" for
    example; None where the server has none or it is off. rtc_missing: answers without the RTC that the server had
    promised. error: the last one, as text; it stays after the cause has gone, until reset(). failed: what ended the
    asking, until reset().
    """

    state: MotionState
    plan_step: int
    rows_left: int
    delay_steps: int
    latency_p50_s: float
    latency_p99_s: float
    latency_max_s: float
    requests: int = 0
    chunks: int = 0
    late: int = 0
    starved_steps: int = 0
    superseded: int = 0
    expired: int = 0
    stale: int = 0
    bad_answers: int = 0
    refused: int = 0
    sessions: int = 0
    is_connected: bool = False
    is_overdue: bool = False
    rtc: str | None = None
    rtc_missing: int = 0
    error: str | None = None
    failed: PolicyserveError | None = None


class Connect(NamedTuple):
    """Connect unless that is done, and tell on_connected() what the server's greeting says."""


class Renew(NamedTuple):
    """Begin a new session at the server, for a new episode, and tell on_connected()."""


class Ask(NamedTuple):
    """Send this observation, and tell on_answer() or on_failure() what came.

    first: the plan step of the chunk's row 0. observed_at: by the client's clock. delay: rows that are expected to run
    before the answer. prefix_rows: how many the request tells the server; None: it says nothing of RTC.
    """

    number: int
    epoch: int
    observation: Any
    first: int
    observed_at: float
    sent_at: float
    delay: int
    prefix_rows: int | None = None


class Rest(NamedTuple):
    """There is nothing to do for so long, or until wake() is called; None: only that ends it."""

    seconds: float | None


Step: TypeAlias = Connect | Renew | Ask | Rest


class MergedChunk(NamedTuple):
    """A chunk that was merged, for on_chunk: row i of each array with as many rows is for plan step first + i.

    actions: (H, D), as the server sent them. fields: all that the answer carried.
    """

    first: int
    actions: Array
    fields: Any
