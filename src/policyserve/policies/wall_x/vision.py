"""The image tower: patches of any number of images, of any sizes, through all blocks in one pass.

Patches are re-ordered so that every attention window is contiguous and windows of one size lie together, over all
images. Then a window block is one attention call per size of window (three, for square images) without a mask or a
copy. The few full blocks gather their queries, keys and values image by image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policyserve.core.arrays import Array
from policyserve.policies.wall_x.architecture import VisionArchitecture
from policyserve.policies.wall_x.images import level_statistics
from policyserve.policies.wall_x.layers import Linear, RmsNorm, SwiGlu, weight
from policyserve.policies.wall_x.rope import Rotation, rotation_of, vision_angles

Grids = tuple[tuple[int, int], ...]  # rows and columns of each image, in patches
Segments = tuple[tuple[int, int], ...]  # (how many, of what length): tokens that attend among themselves

_NORM_EPSILON = 1e-6  # the tower's own, whatever rms_norm_eps says


@dataclass(frozen=True)
class PackingPlan:
    """Where the patches of some images go, and who attends to whom.

    cells: (C,) the merged cell at each place; back: (C,) the place of each cell. by_image: (N,) patches, as they lie,
    gathered image by image; from_image: (N,) its inverse.
    """

    cells: Tensor
    back: Tensor
    by_image: Tensor
    from_image: Tensor
    rotation: Rotation
    windows: Segments
    images: Segments


class VisionTower(nn.Module):
    """Patches to one embedding per merged cell."""

    def __init__(self, architecture: VisionArchitecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.patch_embed = weight(a.width, *a.patch_shape)
        self.blocks = nn.ModuleList(_Block(a) for _ in range(a.depth))
        self.norm = RmsNorm(a.width, _NORM_EPSILON)
        self.merge_in = Linear(a.width * a.merge**2, a.width * a.merge**2, bias=True)
        self.merge_out = Linear(a.width * a.merge**2, a.out_width, bias=True)

    def forward(self, patches: Tensor, grids: Grids) -> Tensor:
        """Encode images, one after the other.

        patches: (N, C·14·14) uint8, rows as `ModelInput.patches`. Returns (N / 4, width), merged cells in raster order.
        """
        return self.packed(patches, plan_packing(grids, self.architecture, patches.device))

    def packed(self, patches: Tensor, plan: PackingPlan) -> Tensor:
        """The same by a plan that is there already: nothing comes from the host."""
        a = self.architecture
        x = F.linear(normalised(patches).to(self.patch_embed.dtype), self.patch_embed.flatten(1))  # (N, C)
        x = x.unflatten(0, (-1, a.merge**2))[plan.cells].flatten(0, 1)
        full = set(a.full_blocks)
        added: Tensor | None = None  # what the block before adds to x, left to the next norm
        for index, block in enumerate(self.blocks):
            x, added = block(x, added, plan, index in full)
        x = x if added is None else x + added
        merged = self.norm(x).view(-1, a.width * a.merge**2)  # (N / 4, 4C)
        return self.merge_out(F.gelu(self.merge_in(merged)))[plan.back]


def normalised(patches: Tensor) -> Tensor:
    """Gray levels as the network was trained with them, a picture standing still for its two moments of time.

    patches: (N, 588) uint8. Returns (N, 1176) float32, rows of channel 3, time 2, y 14, x 14; equal to the original's
    to the bit.
    """
    mean, std = level_statistics_on(patches.device)
    levels = (patches.unflatten(1, (len(mean), -1)) - mean) / std  # (N, 3, 196)
    return levels[:, :, None].expand(-1, -1, 2, -1).flatten(1)


@lru_cache(maxsize=8)
def level_statistics_on(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a channel's gray levels, as `images.level_statistics`; they travel to a device once."""
    mean, std = (torch.from_numpy(values).to(device) for values in level_statistics())
    return mean, std


class _Block(nn.Module):
    def __init__(self, a: VisionArchitecture) -> None:
        super().__init__()
        self.norm1 = RmsNorm(a.width, _NORM_EPSILON)
        self.norm2 = RmsNorm(a.width, _NORM_EPSILON)
        self.qkv = Linear(a.width, 3 * a.width, bias=True)
        self.proj = Linear(a.width, a.width, bias=True)
        self.mlp = SwiGlu(a.width, a.inner, bias=True)
        self._heads = a.heads

    def forward(self, x: Tensor, added: Tensor | None, plan: PackingPlan, is_full: bool) -> tuple[Tensor, Tensor]:
        """Take x and what is still to be added to it; give the same of this block."""
        x, normed = (x, self.norm1(x)) if added is None else self.norm1.after_sum(x, added)
        x, normed = self.norm2.after_sum(x, self.proj(self._attend(normed, plan, is_full)))
        return x, self.mlp(normed)

    def _attend(self, x: Tensor, plan: PackingPlan, is_full: bool) -> Tensor:
        qkv = self.qkv(x).view(x.shape[0], 3, self._heads, -1)  # (N, 3, heads, D)
        turned, values = plan.rotation(qkv[:, :2].flatten(1, 2)), qkv[:, 2]
        queries, keys = turned.chunk(2, dim=1)
        if not is_full:
            return _attend_segments(queries, keys, values, plan.windows).flatten(1)
        queries, keys, values = (part[plan.by_image] for part in (queries, keys, values))
        return _attend_segments(queries, keys, values, plan.images).flatten(1)[plan.from_image]


def _attend_segments(queries: Tensor, keys: Tensor, values: Tensor, segments: Segments) -> Tensor:
    """Attention inside each segment. All (N, heads, D)."""
    outputs, start = [], 0
    for count, length in segments:
        stop = start + count * length
        q, k, v = (part[start:stop].unflatten(0, (count, length)).transpose(1, 2) for part in (queries, keys, values))
        out = F.scaled_dot_product_attention(q, k, v)  # (count, heads, length, D)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
        start = stop
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


@lru_cache(maxsize=64)
def plan_packing(grids: Grids, architecture: VisionArchitecture, device: torch.device) -> PackingPlan:
    """Order the patches of images of these sizes; cached, as a robot's cameras do not change their sizes."""
    merge, side = architecture.merge, architecture.window_cells
    coordinates, images, windows = [], [], []
    for index, (rows, columns) in enumerate(grids):
        row, column = np.divmod(np.arange(rows * columns // merge**2), columns // merge)  # of merged cells
        inside = np.stack(np.divmod(np.arange(merge**2), merge), axis=1)  # (4, 2)
        coordinates.append((np.stack([row, column], axis=1)[:, None] * merge + inside).reshape(-1, 2))
        images.append(np.full(row.size, index))
        windows.append(row // side * (columns // merge // side + 1) + column // side)
    image, window = np.concatenate(images), np.concatenate(windows)
    _, window = np.unique(np.stack([image, window]), axis=1, return_inverse=True)
    cells, window_segments = _sort_by_size(window.reshape(-1))
    by_image, image_segments = _sort_by_size(image[cells])

    def patches_of(order: Array) -> Array:
        return (order[:, None] * merge**2 + np.arange(merge**2)).reshape(-1)

    def place(index: Array) -> Tensor:
        return torch.from_numpy(index).to(device)

    placed = np.concatenate(coordinates)[patches_of(cells)]
    return PackingPlan(
        cells=place(cells),
        back=place(np.argsort(cells)),
        by_image=place(patches_of(by_image)),
        from_image=place(np.argsort(patches_of(by_image))),
        rotation=rotation_of(vision_angles(place(placed), architecture.width // architecture.heads), torch.float32),
        windows=tuple((count, cells * merge**2) for count, cells in window_segments),
        images=tuple((count, cells * merge**2) for count, cells in image_segments),
    )


def _sort_by_size(segment: Array) -> tuple[Array, Segments]:
    """Order that makes each segment contiguous, larger ones first, and the runs of equal sizes. segment: (C,) ids."""
    sizes = np.bincount(segment)
    order = np.lexsort((np.arange(segment.size), segment, -sizes[segment]))
    lengths, counts = np.unique(sizes[sizes > 0], return_counts=True)
    runs = tuple((int(count), int(length)) for length, count in zip(lengths[::-1], counts[::-1], strict=True))
    return order, runs
