"""Two minutes of a server, second by second: what the live page draws as lines."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policyserve.observe.counters import Counters
from policyserve.observe.watcher import Sums

EVERY_S = 1.0
KEPT = 120
_LINES = ("answers_per_s", "p50_ms", "p99_ms", "busy", "sessions", "network_ms", "queue_ms", "infer_ms", "write_ms")
_BATCHES_OVER = 30  # samples


@dataclass(frozen=True)
class Sample:
    """One second. Times are of the answers in it: middle and 99th percentile of all, and what they are made of (means).

    busy: the share of it that the policy was at work, 0 … 1. Times are None where nothing was answered.
    """

    answers_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    busy: float
    sessions: int
    network_ms: float | None
    queue_ms: float | None
    infer_ms: float | None
    write_ms: float | None
    refused: Mapping[str, int]
    sizes: Mapping[int, int]


class Samples:
    """The last two minutes. replicas: how many policies there are to be busy."""

    def __init__(self, counters: Counters, replicas: int) -> None:
        self._counters = counters
        self._replicas = replicas
        self._before = counters.snapshot()
        self._kept: deque[Sample] = deque(maxlen=KEPT)

    def add(self, sums: Sums, seconds: float) -> None:
        """Note what happened in the last `seconds`."""
        before, now = self._before, self._counters.snapshot()
        self._before = now
        times = now.round_trip_ms.since(before.round_trip_ms)
        has_times, answers = times.count > 0, sums.answers

        def mean(total: float) -> float | None:
            return _short(total / answers) if answers else None

        sample = Sample(
            answers_per_s=_short(times.count / seconds),
            p50_ms=_short(times.percentile(50)) if has_times else None,
            p99_ms=_short(times.percentile(99)) if has_times else None,
            busy=_short(min(sums.busy_s / seconds / self._replicas, 1.0)),
            sessions=now.sessions_open,
            network_ms=mean(sums.network_s * 1e3),
            queue_ms=mean(sums.queue_ms),
            infer_ms=mean(sums.infer_ms),
            write_ms=mean(sums.write_ms),
            refused=now.errors - before.errors,
            sizes=sums.sizes,
        )
        self._kept.append(sample)

    @property
    def newest(self) -> Sample | None:
        """The last second; None before the first has passed."""
        return self._kept[-1] if self._kept else None

    def lines(self) -> dict[str, list[Any]]:
        """Each line's values, the oldest first, and `refused`, how many in each second."""
        told = {name: [getattr(sample, name) for sample in self._kept] for name in _LINES}
        return {**told, "refused": [sum(sample.refused.values()) for sample in self._kept]}

    def refused(self) -> Counter[str]:
        """Refusals of the two minutes by code."""
        return sum((Counter(sample.refused) for sample in self._kept), Counter[str]())

    def sizes(self) -> list[tuple[int, int]]:
        """How many calls of the last 30 s had how many requests, by their number."""
        counts: Counter[int] = Counter()
        for sample in list(self._kept)[-_BATCHES_OVER:]:
            counts.update(sample.sizes)
        return sorted(counts.items())


def _short(value: float) -> float:
    return float(f"{value:.4g}")
