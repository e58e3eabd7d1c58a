"""From a batch's inputs to what the decoder reads: embeddings with images and states in place, and positions.

Prefixes of several lengths are padded on the right: under the causal rule no real token looks there, and the slots
are free for the tokens that FAST makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from policyserve.core.arrays import Array
from policyserve.policies.wall_x.architecture import Architecture
from policyserve.policies.wall_x.checks import MAX_LENGTH
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.network import Network
from policyserve.policies.wall_x.rope import Rotation, decoder_angles, prompt_positions, rotation_of


@dataclass(frozen=True)
class Layout:
    """What lies where in one sequence.

    positions: (3, L); images: (M,) the places of image tokens; state_at: the place of the robot's state.
    prefix, actions, trailing: how many tokens, in this order.
    """

    positions: Array
    images: Array
    state_at: int | None
    prefix: int
    actions: int
    trailing: int


@dataclass(frozen=True)
class Prefix:
    """A batch's prefixes, ready for the decoder. x: (B, P, hidden); lengths: the real ones of each."""

    x: Tensor
    rotation: Rotation
    lengths: tuple[int, ...]


def layout_of(item: ModelInput, architecture: Architecture) -> Layout:
    """Find a sequence's parts; cached, as a session repeats its prompt. Raises ValueError for what does not fit."""
    ids = np.ascontiguousarray(item.input_ids, dtype=np.int64)
    layout = _layout(ids.tobytes(), tuple(item.grids), architecture)
    if item.state is not None and layout.state_at is None:
        raise ValueError("the prompt has no <|propri|> token for the state")
    return layout


@lru_cache(maxsize=256)
def _layout(ids_bytes: bytes, grids: tuple[tuple[int, int], ...], architecture: Architecture) -> Layout:
    ids = np.frombuffer(ids_bytes, dtype=np.int64)
    merge = architecture.vision.merge
    cells = [(rows // merge, columns // merge) for rows, columns in grids]
    actions = np.flatnonzero(ids == architecture.action_id)
    start = int(actions[0]) if actions.size else ids.size
    if actions.size and int(actions[-1]) != start + actions.size - 1:
        raise ValueError("the action tokens of a prompt must lie together")
    states = np.flatnonzero(ids == architecture.state_id)
    return Layout(
        positions=prompt_positions(ids, architecture.image_id, cells),
        images=np.flatnonzero(ids == architecture.image_id),
        state_at=int(states[0]) if states.size else None,
        prefix=start,
        actions=int(actions.size),
        trailing=int(ids.size - start - actions.size),
    )


def with_other_lengths(item: ModelInput, architecture: Architecture, tokens: int) -> list[ModelInput]:
    """The same images and state after a prompt of so many words more, and of so many fewer where it has them."""
    layout = layout_of(item, architecture)
    is_word = ~np.isin(item.input_ids, (architecture.image_id, architecture.state_id, architecture.action_id))
    words = np.flatnonzero(is_word[: layout.prefix])
    changed: list[Array] = []
    if words.size and layout.prefix + tokens <= MAX_LENGTH:
        changed.append(np.insert(item.input_ids, words[0], [item.input_ids[words[0]]] * tokens))
    if words.size > tokens:
        changed.append(np.delete(item.input_ids, words[:tokens]))
    return [replace(item, input_ids=ids) for ids in changed]


def embed_prefix(
    network: Network, items: Sequence[ModelInput], layouts: Sequence[Layout], images: Tensor | None, *, slots: int = 0
) -> Prefix:
    """Look up the prefixes' tokens, and put image embeddings and states in their places.

    images: (cells, hidden), of all items' images, one after the other; None: they have none. slots: how long prefixes
    become by padding on the right, where they are shorter.
    """
    device, dtype = network.device, network.dtype
    longest = max(slots, *(layout.prefix for layout in layouts))
    ids = np.zeros((len(items), longest), dtype=np.int64)
    positions = np.ones((3, len(items), longest), dtype=np.int64)
    for row, (item, layout) in enumerate(zip(items, layouts, strict=True)):
        ids[row, : layout.prefix] = item.input_ids[: layout.prefix]
        positions[:, row, : layout.prefix] = layout.positions[:, : layout.prefix]
    x = network.decoder.embed(to_device(ids, device))  # (B, P, hidden)
    flat = x.view(-1, x.shape[-1])
    if images is not None:
        at = np.concatenate([layout.images + row * longest for row, layout in enumerate(layouts)])
        flat.index_copy_(0, to_device(at, device), images.to(dtype))
    states = [(item.state, item.state_mask, row) for row, item in enumerate(items) if item.state is not None]
    if states:
        at = np.array([row * longest + (layouts[row].state_at or 0) for _, _, row in states])
        values = np.stack([state for state, _, _ in states]).astype(np.float32)
        masks = np.stack([np.ones_like(state) if mask is None else mask for state, mask, _ in states])
        embedded = network.action_head.embed_states(
            to_device(values, device), to_device(masks.astype(np.float32), device)
        )
        flat.index_copy_(0, to_device(at, device), embedded.to(dtype))
    lengths = tuple(layout.prefix for layout in layouts)
    return Prefix(x, rotate_by(network, positions), lengths)


def rotate_by(network: Network, positions: Array) -> Rotation:
    """The decoder's rotation of tokens at M-RoPE positions (3, B, S)."""
    a = network.decoder.architecture
    angles = decoder_angles(to_device(positions, network.device), a.rope_sections, a.rope_theta)
    return rotation_of(angles, network.dtype)


def to_device(values: Array, device: torch.device) -> Tensor:
    """A NumPy array on the device: pinned and without waiting where it is a GPU."""
    tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
