"""Observations of random numbers, as the processor would hand them to a Wall-X network."""

from __future__ import annotations

import numpy as np

from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.model import WallXModel

ACTIONS, STEPS, CAMERA, TEXT = 32, 10, (18, 18), 75  # two cameras of 252 × 252 and 75 tokens of text: LIBERO
CELLS = CAMERA[0] * CAMERA[1] // 4
PREFIX = TEXT + 2 * CELLS  # tokens of an observation before its actions


def make_input(
    model: WallXModel, text: int, *, cameras: int = 0, actions: int = ACTIONS, trailing: int = 0, seed: int = 0
) -> ModelInput:
    """Make an observation. text: tokens of the prefix besides the images'; trailing: after the actions."""
    a, random = model.architecture, np.random.default_rng(seed)
    special = {a.image_id, a.action_id, a.state_id, a.eos_id}
    allowed = np.array([i for i in range(model.network.decoder.embed_tokens.shape[0]) if i not in special])
    words = random.choice(allowed, text - 1)
    ids = [*words[: text // 2], *[a.image_id] * (cameras * CELLS), *words[text // 2 :], a.state_id]
    return ModelInput(
        input_ids=np.array([*ids, *[a.action_id] * actions, *words[:trailing]], dtype=np.int64),
        patches=random.integers(0, 256, (cameras * CELLS * 4, 588), np.uint8),
        grids=(CAMERA,) * cameras,
        state=random.standard_normal(a.state_dim, dtype=np.float32),
        state_mask=np.ones(a.state_dim, np.float32),
        dof_mask=np.ones((actions, a.action_dim), np.float32),
        noise=random.standard_normal((actions, a.action_dim), dtype=np.float32),
        dataset="",
    )
