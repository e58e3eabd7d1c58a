"""What a policy's episodes in an environment brought, as a person reads it, in 80 columns, and as a program does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from policyserve.bench.machine import Machine, counted
from policyserve.bench.measures import quantiles
from policyserve.realtime.smoothness import Smoothness, SmoothnessFigures


@dataclass(frozen=True)
class Episode:
    """One episode: the seed that it started from, the sum of its rewards, and how many steps it had."""

    seed: int
    total: float
    steps: int


@dataclass(frozen=True)
class RealTime:
    """How episodes were executed in real time. latencies in ms. rtc: the server's method; None: none.

    blend_steps: actions over which a chunk fades in.
    """

    control_hz: float
    latency_ms: float
    jitter_ms: float
    rtc: str | None
    blend_steps: int


@dataclass
class Scores:
    """The episodes that are over, the round trip of every request in ms, and how many seconds all took.

    notes: what else there is to tell of them, a line each. smoothness: of episodes in real time. real_time: how
    they were executed; None: the environment waited for the policy. versions: answers by the policy that gave them,
    where the server tells it.
    """

    episodes: list[Episode] = field(default_factory=list)
    round_trips_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    smoothness: Smoothness = field(default_factory=Smoothness)
    real_time: RealTime | None = None
    versions: Counter[int] = field(default_factory=Counter[int])

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
        *([("versions", _told_versions(scores))] if scores.versions else []),
        *_of_real_time(scores),
        *(("", note) for note in scores.notes),
    ]
    return "\n".join(row(name, value) for name, value in rows)


def _told_versions(scores: Scores) -> str:
    return ", ".join(f"{version}: {counted(count, 'answer')}" for version, count in sorted(scores.versions.items()))


def _of_real_time(scores: Scores) -> list[tuple[str, str]]:
    """Rows on how smooth episodes in real time were."""
    how = scores.real_time
    if how is None:
        return []
    hz, figures = how.control_hz, scores.smoothness.figures()
    varies = f" ± {how.jitter_ms:g}" if how.jitter_ms else ""
    joined = f"rtc {how.rtc or 'none'}, {f'blend {how.blend_steps} actions' if how.blend_steps else 'no blend'}"
    share = 100 * figures.starved_steps / max(figures.steps, 1)
    pause_ms = 1e3 * figures.longest_pause_steps / hz
    pause = f", the longest pause {pause_ms:.0f} ms" if figures.starved_steps else ""
    rate = figures.chunks * hz / max(figures.steps, 1)
    return [
        ("real time", f"{hz:g} Hz, answers after {how.latency_ms:g}{varies} ms, {joined}"),
        ("starved", f"{figures.starved_steps} of {counted(figures.steps, 'step')} ({share:.1f} %){pause}"),
        ("action age", f"mean {figures.age_mean_s * 1e3:.0f} ms, p99 {figures.age_p99_s * 1e3:.0f} ms"),
        ("seams", _seams(figures)),
        ("chunks", f"{figures.chunks}, {rate:.1f} per second of the episodes"),
    ]


def _seams(figures: SmoothnessFigures) -> str:
    if figures.seam_max is None:
        return "none"
    told = (f"p50 {figures.seam_p50:.2f}", f"p95 {figures.seam_p95:.2f}", f"worst {figures.seam_max:.2f}")
    return f"{', '.join(told)}   (× the policy's own step, p99)"


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
        **({"policy_versions": {str(one): count for one, count in scores.versions.items()}} if scores.versions else {}),
        "answers_per_second": len(scores.round_trips_ms) / max(scores.seconds, 1e-9),
        "round_trip_ms": asdict(quantiles(scores.round_trips_ms)),
        **(
            {} if scores.real_time is None else {"realtime": _as_json_of(scores.real_time, scores.smoothness.figures())}
        ),
    }


def _as_json_of(how: RealTime, figures: SmoothnessFigures) -> dict[str, Any]:
    return {
        **asdict(how),
        "steps": figures.steps,
        "starved_steps": figures.starved_steps,
        "longest_pause_ms": 1e3 * figures.longest_pause_steps / how.control_hz,
        "chunks": figures.chunks,
        "action_age_ms": {"mean": figures.age_mean_s * 1e3, "p99": figures.age_p99_s * 1e3},
        "seam": {"p50": figures.seam_p50, "p95": figures.seam_p95, "max": figures.seam_max},
    }


def _between(least: int, most: int) -> str:
    return counted(most, "step") if least == most else f"{least} … {counted(most, 'step')}"
