"""What a server has done, in words: a line for every few seconds with work, and one for its whole life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.observe.counters import Counters, Snapshot
from policyserve.observe.histogram import Counts

log = Log(__name__)


class StatisticsLog:
    """Logs a line every `every_s` seconds while there is work; 0: never. load: requests that have no answer yet.

    is_short: whether a line has to fit a terminal of 80 columns.
    """

    def __init__(self, counters: Counters, load: Callable[[], int], every_s: float) -> None:
        self._statistics = Statistics(counters)
        self._load = load
        self._every_s = every_s
        self.is_short = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; there is an event loop."""
        if self._every_s:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._tell)

    def stop(self) -> None:
        """Log nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        line = self._statistics.line(self._every_s, self._load(), is_short=self.is_short)
        if line:
            log.info("%s", line, event=Event("statistics"))
        self.start()


class Statistics:
    """Tells what changed in a server's counters from one line to the next."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._before = counters.snapshot()

    def line(self, seconds: float, load: int, *, is_short: bool = False) -> str:
        """What happened since the last line, `seconds` ago; empty if nothing did. load: requests without an answer.

        is_short: leave out the queue, batches of one, and that nothing was refused.
        """
        before, now = self._before, self._counters.snapshot()
        self._before = now
        answers = now.round_trip_ms.since(before.round_trip_ms).count
        refused = now.refused - before.refused
        if not (answers or refused or load):
            return ""
        told = _answered(now, before, is_short) if answers else [f"{counted(load, 'request')} unanswered"]
        rate = f"{_rate(answers / seconds)}{'/s' if is_short else ' answers/s'}"
        end = [f"refused {refused:,}"] if refused or not is_short else []
        return " · ".join([counted(now.sessions_open, "session"), rate, *told, *end])


def _answered(now: Snapshot, before: Snapshot, is_short: bool) -> list[str]:
    """How long answers took, and why."""
    round_trip = now.round_trip_ms.since(before.round_trip_ms)
    batch = now.batch_size.since(before.batch_size)  # none is counted of an inline policy
    policy, queue = now.policy_ms.since(before.policy_ms), now.queue_ms.since(before.queue_ms)
    p50, p99 = (_ms(round_trip.percentile(percent)) for percent in (50, 99))
    has_batch = batch.count and not (is_short and batch.mean == 1)
    return [
        *([f"batch {batch.mean:.1f}"] if has_batch else []),
        f"p50 {p50} p99 {p99} ms" if is_short else f"round trip p50 {p50} p99 {p99} ms",
        *([f"policy {_middle(policy)}"] if policy.count else []),
        *([] if is_short else [f"queue {_middle(queue)}"]),
    ]


def summary(counters: Counters, seconds: float) -> str:
    """A server's life: `stopped after 2 h 3 min: 120,345 answers, 12 refused, p99 14 ms`."""
    now = counters.snapshot()
    told = [counted(now.round_trip_ms.count, "answer")]
    told += [f"{now.refused:,} refused"] if now.refused else []
    told += [f"p99 {_ms(now.round_trip_ms.percentile(99))} ms"] if now.round_trip_ms.count else []
    return f"stopped after {duration(seconds)}: {', '.join(told)}"


def duration(seconds: float) -> str:
    """A time for people, in its two largest units: `2 h 3 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return f"{minutes} min {whole % 60} s"
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{days} d {hours % 24} h"


def counted(count: int, noun: str) -> str:
    """`1 session`, `1,200 sessions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _middle(times_ms: Counts) -> str:
    return f"{_ms(times_ms.percentile(50))} ms"


def _ms(value: float) -> str:
    """Two digits that count."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}".removesuffix(".0")
