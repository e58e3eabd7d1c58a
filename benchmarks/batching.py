"""Play arrival patterns against the pure batcher and print what each rule makes of them. Simulated time: no noise.

    python benchmarks/batching.py [--seconds 20] [--cost-ms 5] [--max-batch 32]

ceiling: for closed loops, as many answers as if every batch held everybody (up to max_batch) and nothing but the policy
took time. fair: answers of the session that got fewest, as a share of the one that got most, among equal sessions.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from policyserve.engine.batcher import Batcher, Job

Pause = Callable[[random.Random], float]  # seconds from an answer to the next request


@dataclass(frozen=True)
class Pattern:
    """Sessions and how long each pauses; several kinds of sessions may be mixed."""

    name: str
    pauses: tuple[Pause, ...]
    is_closed_loop: bool = False
    sending_s: float = 0.0  # that a request takes on its way; those of all sessions go one after the other


@dataclass
class Result:
    """What one pattern saw under one rule."""

    latencies: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)


class Window(Batcher):
    """The rule to beat: whoever comes first waits a fixed time for others."""

    def __init__(self, max_batch: int, window_s: float) -> None:
        super().__init__(max_batch, 100_000, 0.0)
        self._window_s = window_s
        self._first_at: float | None = None

    def take(self, now: float) -> list[Job]:
        if self._first_at is None and self.queued:
            self._first_at = now
        if self._first_at is None or now < self._first_at + self._window_s:
            return []
        batch = super().take(now)
        if batch:
            self._first_at = None
        return batch

    def wake_at(self, now: float) -> float | None:
        return None if self._first_at is None else self._first_at + self._window_s


def turnaround(random_source: random.Random) -> float:
    """A simulator on the same machine: 0.15 to 0.45 ms from an answer to its next request."""
    return random_source.uniform(0.15e-3, 0.45e-3)


def patterns() -> list[Pattern]:
    """What robots and simulators do."""
    loops = [Pattern(f"closed loop, {n}", (turnaround,) * n, is_closed_loop=True) for n in (1, 8, 32, 64)]
    cameras = [Pattern(f"closed loop, {n}, cameras", (turnaround,) * n, True, 8e-5) for n in (8, 32, 64)]
    pausing = tuple([lambda source: source.uniform(0.08, 0.12)] * 8)
    steady = tuple([lambda source: 0.1 - 0.005 + source.gauss(0, 2e-4)] * 8)
    erratic = tuple([lambda source: source.expovariate(1 / 0.02)] * 16)
    bursts = tuple([lambda source: 0.05 + abs(source.gauss(0, 3e-4))] * 32)
    mixed = (*[turnaround] * 4, *pausing)
    return [
        *loops,
        *cameras,
        Pattern("8 robots pausing 80-120 ms", pausing),
        Pattern("8 robots at a steady 10 Hz", steady),
        Pattern("16 clients, exponential pauses 20 ms", erratic),
        Pattern("bursts of 32 every 50 ms", bursts),
        Pattern("4 simulators and 8 robots", mixed),
    ]


def play(pattern: Pattern, batcher: Batcher, cost_s: float, seconds: float, seed: int = 0) -> Result:
    """Run one pattern against one batcher."""
    source = random.Random(seed)
    result = Result()
    ticks = 0
    way_is_free_at = 0.0

    def arrival(sent_at: float) -> float:
        nonlocal way_is_free_at
        way_is_free_at = max(sent_at, way_is_free_at) + pattern.sending_s
        return way_is_free_at if pattern.sending_s else sent_at

    # (time, tie-breaker, session or -1 for the runner's end, -2 for a wake-up)
    events = [(arrival(pause(source)), index, index) for index, pause in enumerate(pattern.pauses)]
    heapq.heapify(events)
    running: list[Job] = []
    while events:
        now, _, who = heapq.heappop(events)
        if now > seconds:
            break
        ticks += 1
        if who >= 0:
            batcher.add(Job(who, now, now + 1e9, None))
        elif who == -1:
            batcher.done(now)
            for job in running:
                session = int(str(job.session))
                result.latencies.append(now - job.arrived_at)
                result.answers[session] += 1
                heapq.heappush(events, (arrival(now + pattern.pauses[session](source)), 10**9 + ticks, session))
                ticks += 1
            running = []
        batch = batcher.take(now)
        if batch:
            running = batch
            heapq.heappush(events, (now + cost_s, ticks, -1))
        elif not running and (wake := batcher.wake_at(now)) is not None and wake < now + 1e6:
            heapq.heappush(events, (max(wake, now + 2e-5), 2 * 10**9 + ticks, -2))
    return result


def row(pattern: Pattern, result: Result, cost_s: float, max_batch: int, seconds: float) -> str:
    """One line of the table."""
    ordered = sorted(result.latencies)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1e3 for share in (0.5, 0.99))
    ceiling = min(len(pattern.pauses), max_batch) / cost_s * seconds
    share = f"{len(ordered) / ceiling:6.0%}" if pattern.is_closed_loop else "      "
    fair = min(result.answers.values()) / max(result.answers.values()) if len(set(pattern.pauses)) == 1 else None
    return f"{share} {p50:7.1f} {p99:7.1f} {'' if fair is None else f'{fair:.2f}':>5}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate batching rules.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--cost-ms", type=float, default=5.0, help="of a batch of any size")
    parser.add_argument("--max-batch", type=int, default=32)
    flags = parser.parse_args()
    cost_s = flags.cost_ms / 1e3
    rules: dict[str, Callable[[], Batcher]] = {
        "greedy": lambda: Batcher(flags.max_batch, 100_000, 0.0),
        "window 2 ms": lambda: Window(flags.max_batch, 2e-3),
        "expected (default)": lambda: Batcher(flags.max_batch, 100_000, None),
        "expected, 2 ms": lambda: Batcher(flags.max_batch, 100_000, 2e-3),
        "expected, 1/10 batch": lambda: Batcher(flags.max_batch, 100_000, min(cost_s / 10, 5e-3)),
    }
    heads = "".join(f" | {name:^28}" for name in rules)
    print(f"{flags.cost_ms:g} ms per batch of up to {flags.max_batch}, {flags.seconds:g} simulated seconds")
    print(f"{'':38}{heads}")
    print(f"{'pattern':38}" + " |  share  p50 ms  p99 ms  fair" * len(rules))
    for pattern in patterns():
        cells = [
            row(pattern, play(pattern, make(), cost_s, flags.seconds), cost_s, flags.max_batch, flags.seconds)
            for make in rules.values()
        ]
        print(f"{pattern.name:38} | " + " | ".join(cells))


if __name__ == "__main__":
    main()
