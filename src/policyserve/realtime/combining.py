"""How a new chunk's rows join those that are there: cross-fade, LeRobot's aggregates, ACT's ensembling. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError

# The shares of the old and of the new row (LeRobot, async_inference/configs.py).
_SHARES = {
    "weighted_average": (0.3, 0.7),
    "latest_only": (0.0, 1.0),
    "average": (0.5, 0.5),
    "conservative": (0.7, 0.3),
}
REPLACE = "replace"


@dataclass(frozen=True)
class Ensemble:
    """ACT's temporal ensembling: the mean of all chunks that cover a step, the j-th of them weighing e^(−m·j).

    j = 0 is the oldest; m < 0 favours the newest. Raises ConfigError for an m that is none. Source: tonyzhaozh/act,
    LeRobot's ACTTemporalEnsembler.
    """

    m: float = 0.01

    def __post_init__(self) -> None:
        is_number = isinstance(self.m, (int, float)) and not isinstance(self.m, bool)
        if not is_number or not math.isfinite(self.m) or abs(self.m) > 10:
            raise ConfigError(f"ensemble: expected m from -10 to 10 (ACT uses 0.01), got {self.m!r:.40}")


def ensemble(m: float = 0.01) -> Ensemble:
    """What `aggregate` takes for ACT's temporal ensembling; raises ConfigError for an m that is none."""
    return Ensemble(m)


def read_aggregate(given: Any) -> str | Ensemble:
    """A way to join rows; raises ConfigError that lists them."""
    if given == "ensemble":
        return Ensemble()
    if isinstance(given, Ensemble) or (isinstance(given, str) and (given == REPLACE or given in _SHARES)):
        return given
    names = ", ".join((REPLACE, *_SHARES))
    raise ConfigError(f"aggregate: expected one of {names}, or policyserve.ensemble(m), got {given!r:.40}")


def fade_shares(steps: int) -> Array:
    """The old rows' shares while a chunk fades in over so many steps: steps/(steps + 1) … 1/(steps + 1)."""
    return 1 - np.arange(1, steps + 1) / (steps + 1)


def join(how: str | Ensemble, old: Array, new: Array, chunks: Array) -> Array:
    """The rows that take the old ones' place. old, new: (n, D). chunks: (n,), how many the old rows are made of."""
    if isinstance(how, Ensemble):
        share = (1 / (1 + _older_weights(how.m, chunks)))[:, None]
        return old + share * (new - old)
    old_share, new_share = _SHARES.get(how, (0.0, 1.0))
    return old_share * old + new_share * new if old_share else new


def _older_weights(m: float, chunks: Array) -> Array:
    """What the chunks before weigh together where the newest weighs 1: Σ e^(m·i), i = 1 … chunks."""
    if m == 0:
        return chunks.astype(np.float64)
    with np.errstate(over="ignore"):  # infinitely much more: the newest chunk has no say
        return math.exp(m) * np.expm1(m * chunks) / math.expm1(m)
