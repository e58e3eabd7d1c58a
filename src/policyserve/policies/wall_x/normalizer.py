"""The scales of states and actions, by data set: raw numbers to the model's -1 … 1 and back.

Three files have them: normalizer_action.pth and normalizer_propri.pth in the checkpoint directory, a `norm_stats`
JSON of one robot, or a JSON of many robots part by part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadObservation, ConfigError


@dataclass(frozen=True)
class Scale:
    """Normalised x is 2 (x - low) / width - 1, or (x - low) / width where `is_mean_std`. low, width: (D,) float32."""

    low: Array
    width: Array
    is_mean_std: bool = False

    def normalise(self, values: Array) -> Array:
        """Scale (…, D) raw numbers, clamped to -1 … 1 but for mean and deviation. A width of 0 says nothing: 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.is_mean_std:
                return _known((values - self.low) / self.width)
            return _known(np.clip(2 * (values - self.low) / self.width - 1, -1, 1))

    def normalise_unclamped(self, values: Array) -> Array:
        """Scale (…, D) raw numbers, D at most as many as there are: what unnormalise() undoes. A width of 0: 0."""
        low, width = self.low[: values.shape[-1]], self.width[: values.shape[-1]]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return _known((values - low) / width if self.is_mean_std else 2 * (values - low) / width - 1)

    def unnormalise(self, values: Array) -> Array:
        """Scale (…, D) numbers of the model back, D at most as many as there are; nothing is clamped."""
        low, width = self.low[: values.shape[-1]], self.width[: values.shape[-1]]
        return values * width + low if self.is_mean_std else (values + 1) / 2 * width + low


def _bounds(dims: range) -> str:
    return str(dims[0]) if len(dims) == 1 else f"{dims[0]} … {dims[-1]}"


def _known(values: Array) -> Array:
    return np.where(np.isfinite(values), values, np.float32(0))


@dataclass(frozen=True)
class Normalizer:
    """Scales by data set. state: absent for a data set whose states nobody scaled."""

    action: Mapping[str, Scale]
    state: Mapping[str, Scale]

    @property
    def names(self) -> tuple[str, ...]:
        """The data sets that actions can be scaled back with."""
        return tuple(self.action)

    def fitting(self, action_dims: range, state_dims: range | None = None) -> Normalizer:
        """Without the data sets of other robots, so that nobody can name them: those of other widths.

        state_dims: None where states are not scaled. Raises ConfigError if none is left.
        """
        action = {name: scale for name, scale in self.action.items() if scale.low.size in action_dims}
        state = {name: scale for name, scale in self.state.items() if name in action}
        if state_dims is not None:
            state = {name: scale for name, scale in state.items() if scale.low.size in state_dims}
            action = {name: action[name] for name in state}
        if not action:
            states = "" if state_dims is None else f" and states of {_bounds(state_dims)}"
            got = ", ".join(f"{name} of {scale.low.size}" for name, scale in self.action.items())
            cure = "choose its robot by --env, --model-config.action-dim; --conventions pad20 where it was padded"
            expected = f"actions of {_bounds(action_dims)}{states} numbers"
            raise ConfigError(f"statistics: expected {expected}, got {got}; {cure}")
        return Normalizer(action, state)

    def choose(self, names: Any, *, path: str = "dataset_names") -> str:
        """The data set that a client means: a name, a list of one, or, of only one, none at all.

        Raises BadObservation that lists the known ones.
        """
        wanted = [names] if isinstance(names, str) else list(names or ())
        known = ", ".join(self.names)
        if not wanted and len(self.names) == 1:
            return self.names[0]
        if len(wanted) != 1:
            raise BadObservation(path, f"one of {known}", f"{len(wanted)} names" if wanted else "none")
        if wanted[0] not in self.action:
            raise BadObservation(path, f"one of {known}", f"{wanted[0]!r:.80}")
        return wanted[0]
