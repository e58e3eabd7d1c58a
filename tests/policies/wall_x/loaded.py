"""Golden checkpoints as loaded networks, each once, and tiny random ones."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.wall_x_models.random_checkpoint import SIZES, random_config, write_random_checkpoint
from policyserve.core.arrays import Array
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.model import WallXModel, load_model

TINY = SIZES["tiny"]


@lru_cache(maxsize=8)
def loaded(directory: Path, dtype: Literal["float32", "bfloat16"] = "float32") -> WallXModel:
    return load_model(directory, dtype=dtype)


def write_tiny(directory: Path, **changes: Any) -> dict[str, Any]:
    """Write a tiny random checkpoint; `changes` go over its config.json, which is returned."""
    config = {**random_config(TINY), **changes}
    write_random_checkpoint(directory, config, TINY.vocabulary)
    return config


def tiny_input(model: WallXModel, length: int, *, actions: int = 4, trailing: int = 0, seed: int = 0) -> ModelInput:
    """A prompt of words alone with a state at its end, then actions and words."""
    a, random = model.architecture, np.random.default_rng(seed)
    words: Array = random.integers(10, TINY.vocabulary, length - 1 + trailing)
    ids = [*words[: length - 1], a.state_id, *[a.action_id] * actions, *words[length - 1 :]]
    return ModelInput(
        input_ids=np.array(ids, dtype=np.int64),
        patches=np.zeros((0, 588), np.uint8),
        grids=(),
        state=random.standard_normal(a.state_dim).astype(np.float32),
        state_mask=np.ones(a.state_dim, np.float32),
        dof_mask=np.ones((actions, a.action_dim), np.float32),
        noise=random.standard_normal((actions, a.action_dim)).astype(np.float32),
        dataset="",
    )


def told_by_layer(out: Any) -> Array:
    """What a layer or a norm gave. A layer gives x and what is still to be added to it, which the next norm adds."""
    x, added = out if isinstance(out, tuple) else (out, None)
    if added is None:
        return x.numpy()
    parts = added if isinstance(added, tuple) else (added,)  # the decoder's layers give a part for each span
    return x.numpy() + np.concatenate([part.numpy() for part in parts], axis=-2)


def largest(difference: Any) -> float:
    return float(np.abs(np.asarray(difference)).max())
