"""The golden cases as inputs of the network, built from their own tensors: nothing of the preprocessing is needed.

What a case keeps no pixels of is made from its images, a second time and in another way than policyserve does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.policies.wall_x.inputs import ModelInput
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import facts, golden, tensors

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32) * 255
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32) * 255


@dataclass(frozen=True)
class Case:
    """One golden case: its tensors by name, its JSON, and its checkpoint's directory."""

    tensors: dict[str, Array]
    about: dict[str, Any]
    directory: Path

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    @property
    def modes(self) -> list[str]:
        return [mode for mode in ("upstream_sdpa", "bidir_island", "causal") if f"{mode}/v" in self.tensors]

    @property
    def steps(self) -> int:
        return len(self[f"{self.modes[0]}/v"])


@lru_cache(maxsize=4)
def golden_case(name: str) -> Case:
    """Read a case; skips where the golden files are not there."""
    about = facts(name)
    return Case(tensors(name), about, golden(about["checkpoint"]))


def golden_input(case: Case, sample: int | None = None) -> ModelInput:
    """A case as the processor would hand it over. sample: of a case that holds several."""
    mark = "" if sample is None else f"#{sample}"
    row = sample or 0
    is_fast = case.about["kind"] == "fast"
    source = "pre" if sample is None else "batch"
    state = case.tensors.get(f"{source}/proprioception")
    grids = case[f"pre/image_grid_thw{mark}"]
    return ModelInput(
        input_ids=case["fast/prompt_ids"][0] if is_fast else case[f"pre/input_ids{mark}"][0],
        patches=_patches(case, mark, [(int(h) * 14, int(w) * 14) for _, h, w in grids]),
        grids=tuple((int(h), int(w)) for _, h, w in grids),
        state=None if state is None else state[row, 0],
        state_mask=None if state is None else case[f"{source}/agent_pos_mask"][row, 0],
        dof_mask=case[f"{source}/dof_mask"][row],
        noise=None if is_fast else case["flow/noise"][row],
        dataset=case.about.get("dataset", ""),
    )


def _patches(case: Case, mark: str, sizes: list[tuple[int, int]]) -> Array:
    if "pre/pixel_values" in case.tensors:
        return levels_of(case["pre/pixel_values"])
    if "pre/resized_0" in case.tensors:
        images = [case[f"pre/resized_{index}"] for index in range(len(sizes))]
    else:
        cameras = [name for name in case.tensors if name.startswith("obs/") and "state" not in name]
        order = [f"obs/{camera}{mark}" for camera in case.about["cams"]]
        assert set(order) <= set(cameras)
        images = [_resize(case[name], size) for name, size in zip(order, sizes, strict=True)]
    return np.concatenate([patches_of(image) for image in images])


def _resize(image: Array, size: tuple[int, int]) -> Array:
    pillow = import_or_skip("PIL.Image")
    height, width = image.shape[:2]
    first = (256, int(256 * height / width)) if width > height else (int(256 * width / height), 256)
    picture = pillow.fromarray(image).resize(first, pillow.Resampling.BICUBIC)
    return np.asarray(picture.resize((size[1], size[0]), pillow.Resampling.BICUBIC))


def patches_of(image: Array) -> Array:
    """An image (H, W[, 3]) uint8 of sides that divide by 28 as rows of patches (N, 588) uint8."""
    if image.ndim == 2:
        image = np.stack([image] * 3, axis=-1)
    rows, columns = image.shape[0] // 28, image.shape[1] // 28
    cells = image.reshape(rows, 2, 14, columns, 2, 14, 3).transpose(0, 3, 1, 4, 6, 2, 5)  # (…, 3, 14, 14)
    return cells.reshape(-1, 588)


def pixel_values_of(patches: Array) -> Array:
    """Rows of patches (N, 588) uint8 as the original's processor hands them on: (N, 1176) float32, both moments."""
    values = (patches.reshape(-1, 3, 196).astype(np.float32) - _MEAN[:, None]) / _STD[:, None]
    return np.repeat(values[:, :, None], 2, axis=2).reshape(-1, 1176)


def levels_of(pixel_values: Array) -> Array:
    """The gray levels (N, 588) uint8 that became these pixel values (N, 1176)."""
    first = pixel_values.reshape(-1, 3, 2, 196)[:, :, 0]
    return np.rint(first * _STD[:, None] + _MEAN[:, None]).astype(np.uint8).reshape(-1, 588)
