"""What a policy's episodes in an environment brought, as a person reads it, in 80 columns, and as a program does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from policyserve.bench.machine import Machine, counted
from policyserve.bench.measures import quantiles


@dataclass(frozen=True)
class Episode:
    """One episode: the seed that it started from, the sum of its rewards, and how many steps it had."""

    seed: int
    total: float
    steps: int


@dataclass
class Scores:
    """The episodes that are over, the round trip of every request in ms, and how many seconds all took.

    notes: what else there is to tell of them, a line each.
    """

    episodes: list[Episode] = field(default_factory=list)
    round_trips_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def in_order(self) -> list[Episode]:
        """The episodes by their seeds; they end in another order."""
        return sorted(self.episodes, key=lambda episode: episode.seed)

    @property
    def returns(self) -> Any:
        """The episodes' returns by their seeds, (episodes,)."""
        return np.asarray([episode.total for episode in self.in_order])


def table(env_id: str, policy: Sequence[tuple[str, str]], scores: Scores) -> str:
    """The result of at least one episode as a person reads it; policy: rows that say which policy it is."""
    returns, trips = scores.returns, quantiles(scores.round_trips_ms)
    steps = [episode.steps for episode in scores.episodes]
    answers = len(scores.round_trips_ms)
    rows = [
        ("environment", env_id),
        *policy,
        ("episodes", f"{len(returns)}, of {_between(min(steps), max(steps))}"),
        (
            "return",
            f"{returns.mean():.1f} ± {returns.std():.1f}   (worst {returns.min():.1f}, best {returns.max():.1f})",
        ),
        ("answers", f"{answers} in {scores.seconds:.1f} s, {answers / max(scores.seconds, 1e-9):.0f} per second"),
        ("round trip", f"p50 {trips.p50:.2f} ms, p99 {trips.p99:.2f} ms"),
        *(("", note) for note in scores.notes),
    ]
    return "\n".join(row(name, value) for name, value in rows)


def row(name: str, value: object) -> str:
    """One row of the table."""
    return f"{name:12} {value}"


def as_json(env_id: str, policy: Sequence[tuple[str, str]], scores: Scores, machine: Machine) -> dict[str, Any]:
    """All figures of at least one episode; times in ms."""
    returns = scores.returns
    return {
        "policyserve": machine.policyserve,
        "machine": asdict(machine),
        "environment": env_id,
        **dict(policy),
        "return": {
            "mean": float(returns.mean()),
            "std": float(returns.std()),
            "min": float(returns.min()),
            "max": float(returns.max()),
        },
        "episodes": [
            {"seed": episode.seed, "return": episode.total, "steps": episode.steps} for episode in scores.in_order
        ],
        "seconds": scores.seconds,
        "answers": len(scores.round_trips_ms),
        "answers_per_second": len(scores.round_trips_ms) / max(scores.seconds, 1e-9),
        "round_trip_ms": asdict(quantiles(scores.round_trips_ms)),
    }


def _between(least: int, most: int) -> str:
    return counted(most, "step") if least == most else f"{least} … {counted(most, 'step')}"
