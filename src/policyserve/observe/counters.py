"""What one server counts: for /healthz, for the lines of statistics, and for whoever else wants numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import Timing
from policyserve.core.observer import Observer, SessionFacts
from policyserve.core.policy import ActionChunk
from policyserve.observe.histogram import SIZES, TIMES_MS, Counts, Histogram


@dataclass(frozen=True)
class Snapshot:
    """The counters at one moment. errors: refusals by code."""

    sessions_open: int
    errors: Counter[str]
    round_trip_ms: Counts
    queue_ms: Counts
    policy_ms: Counts
    batch_size: Counts

    @property
    def refused(self) -> int:
        """Refusals of all codes."""
        return sum(self.errors.values())


@dataclass(eq=False)
class Counters(Observer):
    """Counts since the server started. Written by the event loop's thread only.

    round_trip_ms: of requests that were answered, from arrival to reply. queue_ms: their wait for the policy.
    policy_ms, batch_size: of the policy's calls, but for those in the event loop, which counting would slow by 5 %.
    """

    hears_inline_batches = False

    sessions_opened: int = 0
    sessions_open: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by error code
    round_trip_ms: Histogram = field(default_factory=lambda: Histogram(TIMES_MS))
    queue_ms: Histogram = field(default_factory=lambda: Histogram(TIMES_MS))
    policy_ms: Histogram = field(default_factory=lambda: Histogram(TIMES_MS))
    batch_size: Histogram = field(default_factory=lambda: Histogram(SIZES))

    def __post_init__(self) -> None:
        self._round_trips, self._round_trip_sums = self.round_trip_ms.counts, self.round_trip_ms.sums
        self._queues, self._queue_sums = self.queue_ms.counts, self.queue_ms.sums

    @property
    def requests(self) -> int:
        """Requests that were answered with actions."""
        return self.round_trip_ms.count

    @property
    def total_latency_ms(self) -> float:
        """Their times' sum, arrival to reply."""
        return self.round_trip_ms.total

    @property
    def mean_latency_ms(self) -> float:
        """Mean of all answered requests; 0 before the first."""
        return self.total_latency_ms / self.requests if self.requests else 0.0

    def snapshot(self) -> Snapshot:
        """What is counted now. Call it in the event loop's thread."""
        return Snapshot(
            self.sessions_open,
            self.errors.copy(),
            self.round_trip_ms.snapshot(),
            self.queue_ms.snapshot(),
            self.policy_ms.snapshot(),
            self.batch_size.snapshot(),
        )

    def on_session_opened(self, session: SessionFacts) -> None:
        self.sessions_opened += 1
        self.sessions_open += 1

    def on_session_closed(self, session: int) -> None:
        self.sessions_open -= 1

    def on_answer(self, session: int, ticket: int, chunk: ActionChunk, timing: Timing) -> None:
        # Histogram.add() without the call, since it is for each answer.
        total_ms, queue_ms = timing.total_ms, timing.queue_ms
        place = bisect_left(TIMES_MS, total_ms)
        self._round_trips[place] += 1
        self._round_trip_sums[place] += total_ms
        place = bisect_left(TIMES_MS, queue_ms)
        self._queues[place] += 1
        self._queue_sums[place] += queue_ms

    def on_refusal(self, session: int, ticket: int | None, error: PolicyserveError) -> None:
        self.errors[error.code] += 1

    def on_batch_ended(self, size: int, seconds: float) -> None:
        self.policy_ms.add(seconds * 1e3)
        self.batch_size.add(size)
