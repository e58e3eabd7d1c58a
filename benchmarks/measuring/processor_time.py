"""Processor time of this process's children and theirs, by what they are to a cluster, as Linux tells it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

_TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")
KINDS = {  # words of a command line, the first that fits
    "ServeController": "controller",
    "ServeReplica": "replicas",
    "gcs_server": "gcs",
    "raylet/raylet": "raylet",
    "policyserve.cli": "edge",
}
OTHER = "rest of Ray"


def kind_of(command: str) -> str:
    """What the process of a command line is."""
    return next((kind for words, kind in KINDS.items() if words in command), OTHER)


def by_kind() -> Counter[str]:
    """Milliseconds so far of each kind of process below this one, and of this one, which is the clients."""
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                # The name in brackets may have spaces; behind it stand state, parent, …, utime, stime.
                fields = (place / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(place.name)] = int(fields[1])
            used[int(place.name)] = (int(fields[11]) + int(fields[12])) * _TICK_MS
    total: Counter[str] = Counter({"clients": int(1000 * sum(os.times()[:2]))})
    for number in parents:
        if number != os.getpid() and _is_below(number, parents):
            total[kind_of(_command(number))] += used[number]
    return total


def busy_ms() -> int:
    """Milliseconds so far of all programs on all cores."""
    user, nice, system, _, _, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + soft) * _TICK_MS


def _is_below(number: int, parents: dict[int, int]) -> bool:
    while number in parents:
        if number == os.getpid():
            return True
        number = parents[number]
    return False


def _command(number: int) -> str:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
