"""VecNormalize: the statistics by which observations were normalised while a policy learned, in a pickle of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.policies.files import reading
from policyserve.policies.sb3.checkpoints import CHECKPOINT
from policyserve.policies.sb3.features import SINGLE, Extract
from policyserve.policies.sb3.numpy_values import array_of, map_of
from policyserve.policies.sb3.pickles import Thing, read_pickle, told_of
from policyserve.policies.sb3.spaces import SPACES, Box, Dict, Leaf

_NAMES = ("vecnormalize.pkl", "vec_normalize.pkl")
_WRAPPER = "stable_baselines3.common.vec_env.vec_normalize VecNormalize"
_STATISTICS = "stable_baselines3.common.running_mean_std RunningMeanStd"
_EXPECTED = SPACES | {_WRAPPER, _STATISTICS}
_CURE = "--vecnormalize none serves the policy without"


@dataclass(frozen=True, eq=False)
class _ZScores:
    """Observations as VecNormalize gives them to the policy: float32, computed in float64 and bounded."""

    mean: Array
    scale: Array
    clip: float

    def __call__(self, rows: Array) -> Array:
        return np.clip((rows - self.mean) / self.scale, -self.clip, self.clip).astype(np.float32)


def find_statistics(archive: Path, given: str | None) -> Path | None:
    """Which file belongs to a zip: the one that was given; None given: one beside it; `none` given: no file.

    Raises ConfigError for a file that was given and is not there.
    """
    if given == "none":
        return None
    if given is not None:
        named = Path(given).expanduser()
        if not named.is_file():
            raise ConfigError(f"vecnormalize: expected a VecNormalize file, or none, got {given}, which is no file")
        return named
    checkpoint = CHECKPOINT.fullmatch(archive.name)
    own = (f"{checkpoint[1]}_vecnormalize_{checkpoint[2]}_steps.pkl",) if checkpoint else ()
    return next((found for name in (*own, *_NAMES) if (found := archive.parent / name).is_file()), None)


def read_statistics(path: Path, space: Leaf | Dict) -> Mapping[str, Extract]:
    """What normalises each part of an observation, by its key; empty if the wrapper normalised rewards alone.

    Raises ConfigError for what is no VecNormalize, and for statistics of another observation space.
    """
    told = str(path)
    with reading(path, "a VecNormalize file"):
        content = path.read_bytes()
    thing = read_pickle(content, told, _EXPECTED)
    if not isinstance(thing, Thing) or thing.kind != _WRAPPER:
        raise ConfigError(f"{told}: expected a pickled VecNormalize, got {told_of(thing)}; {_CURE}")
    state = map_of(thing.state, told)
    if not _is_on(state.get("norm_obs"), told):
        return {}
    spaces: Mapping[str, Leaf] = space.spaces if isinstance(space, Dict) else {SINGLE: space}
    statistics = _by_key(state, isinstance(space, Dict), told)
    unknown = [key for key in statistics if key not in spaces]
    if unknown:
        raise ConfigError(f"{told}: expected statistics of {', '.join(spaces)}, got some of {unknown[0]:.60}; {_CURE}")
    epsilon, clip = (_positive(state.get(name), f"{told}: {name}") for name in ("epsilon", "clip_obs"))
    return {key: _scores(one, spaces[key], epsilon, clip, f"{told}: {key:.60}") for key, one in statistics.items()}


def _by_key(state: Mapping[str, Any], is_dict: bool, told: str) -> Mapping[str, Any]:
    """The statistics of each part that is normalised."""
    found = state.get("obs_rms")
    if not is_dict:
        return {SINGLE: found}
    by_key, keys = map_of(found, f"{told}: obs_rms"), state.get("norm_obs_keys")
    wanted = list(by_key) if keys is None else keys
    if not isinstance(wanted, (list, tuple)) or not all(isinstance(key, str) and key in by_key for key in wanted):
        raise ConfigError(f"{told}: norm_obs_keys: expected keys of obs_rms, got others; {_CURE}")
    return {key: by_key[key] for key in wanted}


def _scores(thing: Any, space: Leaf, epsilon: float, clip: float, told: str) -> _ZScores:
    if not isinstance(thing, Thing) or thing.kind != _STATISTICS:
        raise ConfigError(f"{told}: expected a RunningMeanStd, got {told_of(thing)}; {_CURE}")
    state = map_of(thing.state, told)
    mean, variance = (array_of(state.get(name), f"{told}: {name}").astype(np.float64) for name in ("mean", "var"))
    if not isinstance(space, Box) or mean.shape != space.shape or variance.shape != space.shape:
        got = f"{mean.shape} and {variance.shape}"
        raise ConfigError(f"{told}: expected a mean and a variance of the policy's {space}, got {got}; {_CURE}")
    if not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all()):
        raise ConfigError(f"{told}: expected finite statistics, and no negative variance, got others; {_CURE}")
    return _ZScores(mean, np.sqrt(variance + epsilon), clip)


def _is_on(value: Any, told: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{told}: norm_obs: expected true or false, got {told_of(value)}; {_CURE}")
    return value


def _positive(value: Any, told: str) -> float:
    number = array_of(value, told)
    if number.ndim or not 0 < number < np.inf:
        raise ConfigError(f"{told}: expected a number above 0, got another; {_CURE}")
    return float(number)
