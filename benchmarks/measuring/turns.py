"""Fair comparisons: one client process asks all sides in turns, and everything is started afresh several times.

Two processes of the same client differ by up to a factor of two in what their allocator costs them, and so do two
processes of the same server. So both sides of a ratio are asked by one process, slice by slice, and a ratio is told as
the median and the quartiles of what several fresh starts of the client and of every server found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeAlias

from policyserve.bench.measures import Spread, ratios, spread

from .harness import FOLDER, Effort, Program, Serving, all_started

_PATIENCE_S = 600.0  # for one client process


@dataclass(frozen=True)
class Asker:
    """One side: which server is asked, by whom, for what.

    way: "raw" (prepared frames, nothing decoded), "ours" (`Client`), "openpi-client" (PyPI's), "plain" (`websockets`
    on its defaults), "tcp" (bytes that nobody decodes), "mixed" (raw, of many sizes) or "stepping" (raw, with a pause
    between an answer and the next request). path: of the URL.
    """

    server: str
    payload: str
    way: str = "raw"
    dialect: str = "openpi"
    clients: int = 1
    path: str = ""
    offers_deflate: bool = False


@dataclass(frozen=True)
class Slice:
    """What one side did in one turn. faults: page faults of its server meanwhile."""

    p50_s: float
    per_second: float
    answers: int
    faults: int


Sides: TypeAlias = Mapping[str, Sequence[Slice]]  # of one fresh start, by name


def in_turns(
    servers: Mapping[str, Program], askers: Mapping[str, Asker], effort: Effort, python: str | None = None
) -> list[Sides]:
    """Start servers and a client process afresh, `effort.starts` times, and have the client ask every side in turns.

    python: the interpreter of the client process, one that has openpi-client say; None: this one.
    """
    found: list[Sides] = []
    for _ in range(effort.starts):
        with all_started(servers) as up:
            found.append(ask_in_turns(up, askers, effort, python))
    return found


def ask_in_turns(
    up: Mapping[str, Serving], askers: Mapping[str, Asker], effort: Effort, python: str | None = None
) -> Sides:
    """Have one new client process ask servers that are up."""
    sides = {
        name: {**asdict(asker), "url": up[asker.server].url, "pid": up[asker.server].process.pid}
        for name, asker in askers.items()
    }
    job = json.dumps({"sides": sides, "slices": effort.slices, "slice_s": effort.slice_s})
    command = [python or sys.executable, "-m", "measuring.driver"]
    environment = _environment()
    done = subprocess.run(
        command, cwd=FOLDER, env=environment, input=job, text=True, capture_output=True, timeout=_PATIENCE_S
    )
    if done.returncode:
        raise SystemExit(f"the client process failed: {done.stderr[-2000:]}")
    told = json.loads(done.stdout)
    return {name: [Slice(**one) for one in slices] for name, slices in told.items()}


def trip_ratio(starts: Sequence[Sides], one: str, other: str) -> Spread:
    """The median round trip of one side over that of the other: quartiles over the starts, or over one's slices."""
    return _over_starts([_ratios(sides, one, other, "p50_s") for sides in starts])


def rate_ratio(starts: Sequence[Sides], one: str, other: str) -> Spread:
    """The same of answers per second."""
    return _over_starts([_ratios(sides, one, other, "per_second") for sides in starts])


def difference_ms(starts: Sequence[Sides], one: str, other: str) -> Spread:
    """By how much the median round trip of one side is longer: quartiles as of a ratio."""
    return _over_starts(
        [
            spread([(ours.p50_s - theirs.p50_s) * 1e3 for ours, theirs in zip(sides[one], sides[other], strict=True)])
            for sides in starts
        ]
    )


def median_us(starts: Sequence[Sides], name: str) -> float:
    """One side's median round trip in µs."""
    return median(one.p50_s for sides in starts for one in sides[name]) * 1e6


def faults_per_answer(starts: Sequence[Sides], name: str) -> Spread:
    """Page faults of a side's server for each of its answers: quartiles over the starts."""
    return spread(
        [sum(one.faults for one in sides[name]) / sum(one.answers for one in sides[name]) for sides in starts]
    )


def _ratios(sides: Sides, one: str, other: str, figure: str) -> Spread:
    ours, theirs = ([getattr(slice_, figure) for slice_ in sides[name]] for name in (one, other))
    return ratios(ours, theirs)


def _over_starts(found: Sequence[Spread]) -> Spread:
    return found[0] if len(found) == 1 else spread([one.median for one in found])


def _environment() -> dict[str, str]:
    """Another interpreter finds this package where this one has it."""
    source = str(FOLDER.parent / "src")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
