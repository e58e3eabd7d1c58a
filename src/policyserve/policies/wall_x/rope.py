"""Rotary positions: two-dimensional for the image tower, M-RoPE (time, row, column) for the decoder.

Both turn channel j of a head's first half together with channel j of its second half, so tables hold half a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policyserve.core.arrays import Array
from policyserve.policies.wall_x.fused import parts_turned, turn, turn_and_store

_VISION_THETA = 10_000.0


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines, broadcastable against half a head's channels: (…, D/2)."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Turn the heads in x's last axis; dtype as the wider of x's and the table's, then x's."""
        return turn(x, self.cos, self.sin)

    def parts(self, qkv: Tensor, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, turned but the values, which a derivative can be taken of: see fused.py."""
        return parts_turned(qkv, self.cos, self.sin, kv_heads)

    def store(
        self, qkv: Tensor, keys: Tensor, values: Tensor, start: int = 0, *, slots: Tensor | None = None
    ) -> Tensor:
        """Turn queries and keys, put keys and values into a layer's cache, return the queries: see fused.py."""
        return turn_and_store(qkv, self.cos, self.sin, keys, values, start, slots)

    def __getitem__(self, index: object) -> Rotation:
        return Rotation(self.cos[index], self.sin[index])  # pyright: ignore[reportArgumentType]


def prompt_positions(ids: Array, image_id: int, cells: Sequence[tuple[int, int]]) -> Array:
    """M-RoPE's positions of a sequence.

    ids: (L,) int. cells: rows and columns of each image's merged cells, in order. Returns (3, L) int64.
    Text counts on along all three axes; an image keeps its time and spreads over rows and columns, and the text after
    it goes on from the longer of the two. Raises ValueError where the images' tokens are not those of `cells`.
    """
    pieces: list[Array] = []
    counter, cursor = 0, 0
    is_image = ids == image_id
    for rows, columns in cells:
        starts = np.flatnonzero(is_image[cursor:])
        start = cursor + int(starts[0]) if starts.size else len(ids)
        stop = start + rows * columns
        if stop > len(ids) or not is_image[start:stop].all():
            break
        text = np.arange(counter, counter + start - cursor)
        counter += start - cursor
        row, column = np.divmod(np.arange(rows * columns), columns)
        pieces += [np.stack([text] * 3), np.stack([np.zeros_like(row), row, column]) + counter]
        counter, cursor = counter + max(rows, columns), stop
    expected = sum(rows * columns for rows, columns in cells)
    if int(is_image.sum()) != expected or is_image[cursor:].any():
        raise ValueError(f"the prompt holds {int(is_image.sum())} image tokens, its images make {expected}")
    text = np.arange(counter, counter + len(ids) - cursor)
    return np.concatenate([*pieces, np.stack([text] * 3)], axis=1).astype(np.int64)


def decoder_angles(positions: Tensor, sections: Sequence[int], theta: float) -> Tensor:
    """Angles of M-RoPE: each frequency belongs to one axis. positions: (3, …) int. Returns (…, D/2) float32."""
    half = sum(sections)
    exponents = torch.arange(half, dtype=torch.float32, device=positions.device) / half
    frequencies = 1.0 / theta**exponents  # (D/2,)
    per_axis = torch.split(frequencies, list(sections))
    return torch.cat([positions[axis, ..., None].float() * part for axis, part in enumerate(per_axis)], dim=-1)


def rotation_of(angles: Tensor, dtype: torch.dtype) -> Rotation:
    """The table of angles, computed in float32 and rounded to `dtype`, with an axis for the heads before the last."""
    return Rotation(angles.cos().to(dtype)[..., None, :], angles.sin().to(dtype)[..., None, :])


def vision_angles(coordinates: Tensor, head_dim: int) -> Tensor:
    """Angles of patches. coordinates: (N, 2) rows and columns. Returns (N, D/2) float32: rows' part, columns' part."""
    quarter = head_dim // 4
    exponents = torch.arange(quarter, dtype=torch.float32, device=coordinates.device) / quarter
    frequencies = 1.0 / _VISION_THETA**exponents
    return (coordinates[..., None].float() * frequencies).flatten(1)
