"""A batch's images to embeddings: on a GPU by one CUDA graph for each set of sizes and power of two of observations."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from policyserve.policies.wall_x.architecture import VisionArchitecture
from policyserve.policies.wall_x.graphs import Capture, Graphs
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.network import Network
from policyserve.policies.wall_x.sequence import to_device
from policyserve.policies.wall_x.vision import Grids, PackingPlan, level_statistics_on, plan_packing


@dataclass(frozen=True)
class ImageState:
    """Observations whose images have the same sizes, and the place of their embeddings.

    grids: of one observation. patches: (B, N, 588) uint8. embeddings: (B, N / 4, hidden), written by `encode`.
    """

    grids: Grids
    architecture: VisionArchitecture
    patches: Tensor
    embeddings: Tensor

    @cached_property
    def plan(self) -> PackingPlan:
        """Of all observations' images. The state keeps it, since a graph reads its tensors where they are."""
        return plan_packing(self.grids * len(self.patches), self.architecture, self.patches.device)

    @property
    def key(self) -> Hashable:
        return self.grids

    @property
    def shape(self) -> str:
        """See graphs.State."""
        sizes = ", ".join(f"{rows}x{columns}" for rows, columns in self.grids)
        return f"batches of up to {len(self.patches)}, images of {sizes} patches"

    def tensors(self) -> list[tuple[Tensor, int | None]]:
        """See graphs.State."""
        return [(self.patches, 0), (self.embeddings, 0)]

    def replace(self, tensors: list[Tensor]) -> ImageState:
        """See graphs.State."""
        patches, embeddings = tensors
        return ImageState(self.grids, self.architecture, patches, embeddings)


class ImageEncoder:
    """Runs the vision tower on a batch's images. One network, one thread."""

    def __init__(self, network: Network, capture: Capture | None = None) -> None:
        """Store what the encoder works with. capture: for the tower, see graphs.py; None: it runs plainly."""
        self.network = network
        self._graphs: Graphs[ImageState] | None = None
        if capture is not None:
            self._graphs = Graphs([self.encode], capture)
            self._levels = level_statistics_on(network.device)  # which graphs read where they are

    @property
    def graphs(self) -> Graphs[ImageState] | None:
        """Those of the tower; None where it runs plainly."""
        return self._graphs

    def __call__(self, items: Sequence[ModelInput]) -> Tensor | None:
        """Embeddings of all images, one after the other: (cells, hidden), valid until the next call; None: no images.

        Observations whose images differ in size from each other's are encoded without a graph: there are too many
        such batches for each to have its own.
        """
        items = [item for item in items if item.grids]
        if not items:
            return None
        network = self.network
        patches = to_device(np.concatenate([item.patches for item in items]), network.device)
        grids: list[Grids] = [tuple((int(rows), int(columns)) for rows, columns in item.grids) for item in items]
        if self._graphs is None or len(set(grids)) > 1:
            return network.vision(patches, tuple(grid for one in grids for grid in one))
        a = network.architecture.vision
        by_item = patches.unflatten(0, (len(items), -1))
        embeddings = torch.empty(
            (len(items), by_item.shape[1] // a.merge**2, a.out_width), dtype=network.dtype, device=network.device
        )
        captured = self._graphs.enter(ImageState(grids[0], a, by_item, embeddings))
        captured.replay()
        return captured.state.embeddings[: len(items)].flatten(0, 1)

    def encode(self, state: ImageState) -> None:
        """Fill a state's embeddings. They lie outside of the graphs' memory, which the next graph writes over."""
        made = self.network.vision.packed(state.patches.flatten(0, 1), state.plan)
        state.embeddings.copy_(made.view_as(state.embeddings))
