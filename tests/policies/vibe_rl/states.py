"""Small train states of PPO, DQN and SAC as vibe_rl would save them, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Leaf = NDArray[Any]


def write_eqx(path: Path, leaves: Sequence[Any]) -> Path:
    """Write leaves as .npy records one after another, and the folders above them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for leaf in leaves:
            np.save(file, leaf)
    return path


def ppo_state(sizes: Sequence[int], shared: bool = False, seed: int = 0) -> list[Leaf]:
    """All leaves: actor and critic (or backbone and heads), Adam, step, rng. sizes: inputs, *hidden, outputs."""
    rng = np.random.default_rng(seed)
    actor = _layers(rng, sizes)
    critic = _layers(rng, [sizes[-2], 1]) if shared else _layers(rng, [*sizes[:-1], 1])
    return [*actor, *critic, *_adam([*actor, *critic]), *_tail()]


def dqn_state(sizes: Sequence[int], seed: int = 0) -> list[Leaf]:
    """All leaves: online and target network, Adam, step, rng."""
    rng = np.random.default_rng(seed)
    online, target = _layers(rng, sizes), _layers(rng, sizes)
    return [*online, *target, *_adam(online), *_tail()]


def sac_state(sizes: Sequence[int], seed: int = 0) -> list[Leaf]:
    """All leaves: actor with its second head, twin critics and their targets, three optimizers, step, rng."""
    rng = np.random.default_rng(seed)
    actor = [*_layers(rng, sizes), *_layers(rng, sizes[-2:])]
    critics = [leaf for _ in range(2) for leaf in _layers(rng, [sizes[0] + sizes[-1], *sizes[1:-1], 1])]
    alpha = np.zeros((), np.float32)
    return [*actor, *critics, *critics, *_adam(actor), *_adam(critics), alpha, *_adam([alpha]), *_tail()]


def _layers(rng: np.random.Generator, sizes: Sequence[int]) -> list[Leaf]:
    shapes = [shape for inputs, outputs in pairwise(sizes) for shape in ((outputs, inputs), (outputs,))]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _adam(leaves: Sequence[Leaf]) -> list[Leaf]:
    return [np.zeros((), np.int32), *map(np.zeros_like, leaves), *map(np.zeros_like, leaves)]


def _tail() -> list[Leaf]:
    return [np.array(7, np.int32), np.array([0, 1], np.uint32)]
