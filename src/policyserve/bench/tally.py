"""What one run, or one slice of it, saw, and where the time of its round trips went. Pure.

Times are in seconds as they are noted and in milliseconds as they are told.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policyserve.bench.measures import Quantiles, quantiles
from policyserve.core.errors import PolicyserveError
from policyserve.core.printable import one_line

_KIND = re.compile(r"([a-z][a-z_]*): ")  # how a server of ours begins a text frame
_LONGEST_TEXT = 300


@dataclass
class Tally:
    """The answers and errors of one or several clients."""

    trips_s: list[float] = field(default_factory=list)  # from when a request was due to its answer
    late_s: list[float] = field(default_factory=list)  # of that, from due to sent
    timings: list[Mapping[str, Any]] = field(default_factory=list)  # as the server told them, maybe empty
    ended_at: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)  # of each kind of error its first text
    unsent: int = 0  # requests of an open loop that were due and never sent
    seconds: float = 0.0  # how long requests were sent
    cpu_s: float = 0.0  # of the process that drives

    def answered(self, due: float, sent: float, now: float, timing: Mapping[str, Any]) -> None:
        """Note an answer that came at `now`."""
        self.trips_s.append(now - due)
        self.late_s.append(sent - due)
        self.ended_at.append(now)
        self.timings.append(timing)

    def failed(self, error: PolicyserveError) -> None:
        """Note a request that has no answer."""
        kind = kind_of(error)
        self.errors[kind] += 1
        self.examples.setdefault(kind, first_line(str(error)))

    def add(self, other: Tally) -> None:
        """Take in another slice of the same run."""
        self.trips_s += other.trips_s
        self.late_s += other.late_s
        self.timings += other.timings
        self.ended_at += other.ended_at
        self.errors += other.errors
        self.examples = {**other.examples, **self.examples}
        self.unsent += other.unsent
        self.seconds += other.seconds
        self.cpu_s += other.cpu_s

    @property
    def answers(self) -> int:
        """How many requests were answered."""
        return len(self.trips_s)

    @property
    def per_second(self) -> float:
        """Answers per second; 0 where none came."""
        return self.answers / self.seconds if self.seconds > 0 else 0.0


def kind_of(error: PolicyserveError) -> str:
    """A word for the table: the code that a server of ours sends, a close code, or the error's own code."""
    close_code = getattr(error, "close_code", None)
    told = _KIND.match(str(error))
    if error.code == "remote" and close_code is None and told:
        return told.group(1)
    return f"close {close_code}" if error.code == "remote" and close_code else error.code


def first_line(text: str) -> str:
    """A server's complaint in one line: its first, or its last where it sent a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no text"]
    return one_line(lines[-1 if lines[0].startswith("Traceback") else 0][:_LONGEST_TEXT])


def split(tally: Tally, client: Quantiles | None, is_paced: bool = False) -> dict[str, Quantiles]:
    """Quantiles in ms of the round trip and of the parts that the server tells of. There is at least one answer.

    client: what encoding the request and decoding the reply cost; None: it is not known, and the network has it.
    A server of ours tells all; openpi's and Wall-X's own tell infer; vibe_rl's, and ours to vla-eval's clients, tell
    the whole of their side.
    """
    parts: dict[str, list[float]] = {"round trip": [trip * 1e3 for trip in tally.trips_s]}
    rest = list(parts["round trip"])
    if is_paced:
        parts["late"] = [late * 1e3 for late in tally.late_s]
        rest = _minus(rest, parts["late"])
    if client is not None:
        rest = _minus(rest, [client.p50] * len(rest))
    told = {name: found for name in ("total_ms", "latency_ms", "queue_ms", "infer_ms") if (found := _told(tally, name))}
    if {"total_ms", "queue_ms", "infer_ms"} <= told.keys():
        parts["network"] = _minus(rest, told["total_ms"])
        parts["server"] = _minus(_minus(told["total_ms"], told["queue_ms"]), told["infer_ms"])
        parts["queue"], parts["infer"] = told["queue_ms"], told["infer_ms"]
    elif "latency_ms" in told:
        parts["network"] = _minus(rest, told["latency_ms"])
        parts["server + infer"] = told["latency_ms"]
    elif "infer_ms" in told:
        parts["network + server"] = _minus(rest, told["infer_ms"])
        parts["infer"] = told["infer_ms"]
    else:
        parts["network + server"] = rest
    measured = {name: quantiles(values) for name, values in parts.items()}
    if client is None:
        return measured
    first = {name: measured.pop(name) for name in ("round trip", "late") if name in measured}
    return {**first, "client": client, **measured}


def _told(tally: Tally, name: str) -> list[float] | None:
    """The values of one timing; None unless every answer has it."""
    values = [float(timing[name]) for timing in tally.timings if _is_time(timing.get(name))]
    return values if len(values) == len(tally.timings) else None


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _minus(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [max(value - other, 0.0) for value, other in zip(values, others, strict=True)]
