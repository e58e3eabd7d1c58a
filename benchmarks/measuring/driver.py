"""The client process of a comparison: reads a job from its input, asks every side in turns, prints what it saw.

`turns.py` starts it. For openpi-client it runs in an environment of its own, since that package pins numpy<2 and
forgets typing_extensions:

    python -m venv openpi-venv && openpi-venv/bin/pip install openpi-client==0.1.2 typing_extensions
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from policyserve.bench.fleet import Fleet
from policyserve.bench.measures import quantiles
from policyserve.bench.tally import Tally

from .clients import open_fleet
from .harness import minor_faults
from .turns import Asker, Slice


def take_turns(
    fleets: Mapping[str, Fleet], pids: Mapping[str, int], slices: int, slice_s: float
) -> dict[str, list[Slice]]:
    """Drive every fleet for a slice, again and again, each time another first; the first round is not counted."""
    names = list(fleets)
    found: dict[str, list[Slice]] = {name: [] for name in names}
    for turn in range(-1, slices):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seen = drive(fleets[name], pids[name], slice_s, name)
            if turn >= 0:
                found[name].append(seen)
    return found


def drive(fleet: Fleet, pid: int, seconds: float, name: str) -> Slice:
    """One turn of one fleet."""
    tally = Tally()
    before = minor_faults(pid)
    fleet.drive(tally, seconds)
    faults = minor_faults(pid) - before
    if not tally.answers or tally.errors:
        raise SystemExit(f"{name}: {tally.answers} answers, {dict(tally.examples)}")
    return Slice(quantiles(tally.trips_s).p50, tally.per_second, tally.answers, faults)


def main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    pids = {name: side.pop("pid") for name, side in job["sides"].items()}
    fleets: dict[str, Fleet] = {}
    for name, side in job["sides"].items():
        url = side.pop("url")
        fleets[name] = open_fleet(Asker(**side), url)
    found = take_turns(fleets, pids, job["slices"], job["slice_s"])
    for fleet in fleets.values():
        fleet.close()
    print(json.dumps({name: [asdict(one) for one in slices] for name, slices in found.items()}))


if __name__ == "__main__":
    main()
