"""How long answers take, for virtual time: a mean, and how much it varies, from a seed. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from policyserve.core.errors import ConfigError

_LONGEST_MS = 600_000


@dataclass(frozen=True)
class LatencyModel:
    """Latencies between an observation and its chunk, in ms: their mean, and their standard deviation.

    They are distributed log-normally, as those of networks are, about: none is negative, and a few are much longer
    than the mean. Raises ConfigError for numbers that are none, or out of range.
    """

    latency_ms: float = 100.0
    jitter_ms: float = 0.0

    def __post_init__(self) -> None:
        check_ms("latency_ms", self.latency_ms)
        check_ms("jitter_ms", self.jitter_ms)
        if self.jitter_ms and not self.latency_ms:
            raise ConfigError(f"jitter_ms: expected 0 with a latency of 0 ms, got {self.jitter_ms:g}")

    def seconds(self, seed: int) -> Iterator[float]:
        """Latencies without end; the same ones for a seed."""
        random = np.random.default_rng((seed, 4))
        if not self.latency_ms or not self.jitter_ms:
            while True:
                yield self.latency_ms / 1e3
        variance = math.log1p((self.jitter_ms / self.latency_ms) ** 2)
        middle = math.log(self.latency_ms / 1e3) - variance / 2
        while True:
            yield float(random.lognormal(middle, math.sqrt(variance)))


def check_ms(name: str, value: Any) -> None:
    """Raise ConfigError unless it is a time in ms that anybody waits."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) <= _LONGEST_MS:
        raise ConfigError(f"{name}: expected ms, 0 to {_LONGEST_MS}, got {value!r:.40}")
