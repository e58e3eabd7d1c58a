"""What the processor hands to the model: one observation, ready for the network. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

from policyserve.core.arrays import Array
from policyserve.policies.prefix import Prefix


@dataclass(frozen=True)
class ModelInput:
    """One observation after preprocessing.

    input_ids: (L,) int64, image placeholders expanded, the action tokens and what follows them included in flow mode;
    in FAST mode the prompt only. patches: (N, 588) uint8, all images concatenated, rows as the vision tower wants
    them (merged cells in raster order, four patches each), see images.image_patches. grids: (rows, columns) in patches
    per image, in order.
    state, state_mask: (P,) float32, None where the observation has no state and that is allowed. dof_mask: (H, A)
    float32. noise: (H, A) float32, where the sampler starts. dataset: the name of the statistics to un-normalise with.
    prefix: what the robot executes until the answer is there, if it said so, rows (H, D) normalised as actions are, D
    at most A. guided: (A,) float32, 1 for the numbers of an action that the prefix may guide; None: all.
    """

    input_ids: Array
    patches: Array
    grids: tuple[tuple[int, int], ...]
    state: Array | None
    state_mask: Array | None
    dof_mask: Array
    noise: Array | None
    dataset: str
    prefix: Prefix | None = None
    guided: Array | None = None
