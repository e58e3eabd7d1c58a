"""FAST's tokens: the prompts once, then greedy decoding, one token of every sequence at a time.

Each sequence's tokens go to its own next slot of one cache, over the padding of shorter prompts. A step reads the slots
that are in use, rounded up. A sequence that has ended stays where it is, computed and not looked at, until half of the
rows are such: then the cache is copied once, without them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from policyserve.policies.wall_x.architecture import TEXT
from policyserve.policies.wall_x.attention import as_bias, grouped_attention, prompt_attention
from policyserve.policies.wall_x.decoder import KvCache, spans_of
from policyserve.policies.wall_x.encoder import ImageEncoder
from policyserve.policies.wall_x.graphs import Capture, Captured, Graphs
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.network import Network
from policyserve.policies.wall_x.rope import Rotation, decoder_angles, rotation_of
from policyserve.policies.wall_x.sequence import embed_prefix, layout_of, to_device

_WINDOWS = 3


@dataclass(frozen=True)
class DecodeState:
    """Sequences on their way, in tensors that `step` changes in place.

    ids: (B,) each one's newest token. slots: (B,) where its key goes. positions: (B,) its rotary position.
    """

    cache: KvCache
    ids: Tensor
    slots: Tensor
    positions: Tensor

    def take(self, rows: Tensor) -> DecodeState:
        return DecodeState(self.cache.take(rows), self.ids[rows], self.slots[rows], self.positions[rows])

    @property
    def capacity(self) -> int:
        """How many slots the cache has."""
        return self.cache.keys.shape[3]

    @property
    def key(self) -> Hashable:
        return None

    @property
    def shape(self) -> str:
        """See graphs.State."""
        return f"batches of up to {len(self.ids)}, prompt and answer of up to {self.capacity} tokens"

    def tensors(self) -> list[tuple[Tensor, int | None]]:
        """See graphs.State."""
        return [(self.cache.keys, 1), (self.cache.values, 1), (self.ids, 0), (self.slots, 0), (self.positions, 0)]

    def replace(self, tensors: list[Tensor]) -> DecodeState:
        """See graphs.State."""
        keys, values, ids, slots, positions = tensors
        return DecodeState(KvCache(keys, values), ids, slots, positions)


class Generator:
    """Greedy decoding. One network, one thread."""

    def __init__(self, network: Network, *, slot_multiple: int = 1, capture: Capture | None = None) -> None:
        """Store what the generator works with.

        slot_multiple: caches have a multiple of this many slots, and steps read one, so that few shapes occur.
        capture: for images, and for steps, see graphs.py; None: they run plainly.
        """
        self.network = network
        self.images = ImageEncoder(network, capture)
        self._slot_multiple = slot_multiple
        self._graphs: Graphs[DecodeState] | None = None
        if capture is not None:
            # Each reads fewer slots by one multiple. The tokens of one prompt, 100, need no more than three.
            works = [partial(self._step_reading_less, multiples=multiples) for multiples in range(_WINDOWS)]
            self._graphs = Graphs(works, capture)

    @property
    def graphs(self) -> Graphs[DecodeState] | None:
        """Those of steps; None where they run plainly."""
        return self._graphs

    def prepare(self, items: Sequence[ModelInput], max_new_tokens: int) -> tuple[DecodeState, Tensor]:
        """Run the prompts. Returns the state, its ids the first new tokens, and those tokens' logits (B, V).

        Raises ValueError for a prompt with action tokens.
        """
        network, decoder = self.network, self.network.decoder
        layouts = [layout_of(item, network.architecture) for item in items]
        if any(layout.actions for layout in layouts):
            raise ValueError("a prompt for FAST ends before any action token")
        prefix = embed_prefix(network, items, layouts, self.images(items))
        batch, longest = prefix.x.shape[:2]
        cache = decoder.empty_cache(batch, self._rounded(longest + max_new_tokens))

        def attend(layer: int, qkv: Tensor, rotation: Rotation) -> Tensor:
            keys, values = cache.keys[layer], cache.values[layer]
            queries = rotation.store(qkv, keys, values)
            return prompt_attention(queries, keys[:, :, :longest], values[:, :, :longest])

        hidden = decoder(prefix.x, spans_of(text=longest), prefix.rotation, attend)
        lengths = to_device(np.array(prefix.lengths, dtype=np.int64), network.device)
        last = hidden[torch.arange(batch, device=network.device), lengths - 1][:, None]  # (B, 1, hidden)
        logits = decoder.logits(decoder.norm(last, ((TEXT, 1),))[:, 0])  # (B, V)
        positions = np.array([int(layout.positions.max()) + 1 for layout in layouts], dtype=np.int64)
        return DecodeState(cache, logits.argmax(dim=-1), lengths, to_device(positions, network.device)), logits

    def step(self, state: DecodeState, stop: int, *, is_even: bool = False) -> Tensor:
        """Feed the newest tokens; `state` moves on to the next ones. Returns their logits (B, V).

        stop: look at this many slots, of which a sequence that goes on has no more. is_even: each of these fills them
        to the last one.
        """
        network, decoder, a = self.network, self.network.decoder, self.network.architecture
        angles = decoder_angles(state.positions.expand(3, -1)[..., None], a.rope_sections, a.rope_theta)
        seen = torch.arange(stop, device=network.device) <= state.slots[:, None]  # (B, stop)
        bias = None if is_even else as_bias(seen, network.dtype)[:, None, None]

        def attend(layer: int, qkv: Tensor, rotation: Rotation) -> Tensor:
            keys, values = state.cache.keys[layer], state.cache.values[layer]
            queries = rotation.store(qkv, keys, values, slots=state.slots)
            return grouped_attention(queries, keys[:, :, :stop], values[:, :, :stop], bias)

        x = decoder.embed(state.ids[:, None])  # (B, 1, hidden)
        hidden = decoder.first_normed(x, spans_of(text=1), rotation_of(angles, network.dtype), attend)
        logits = decoder.logits(hidden[:, 0])
        state.ids.copy_(logits.argmax(dim=-1))
        state.slots.add_(1)
        state.positions.add_(1)
        return logits

    def run(self, items: Sequence[ModelInput], max_new_tokens: int) -> list[list[int]]:
        """New tokens of each input, the end token included where it came in time."""
        if max_new_tokens < 1:
            return [[] for _ in items]
        lengths = [layout_of(item, self.network.architecture).prefix for item in items]
        state, _ = self.prepare(items, max_new_tokens)
        made: list[list[int]] = [[] for _ in items]
        rows = list(range(len(items)))  # whose tokens each row of the state makes
        alive = rows
        state, captured = self._enter(state)
        while True:
            newest = state.ids.tolist()  # of a graph's state too, which can have more rows
            for place in alive:
                made[rows[place]].append(newest[place])
            alive = [place for place in alive if self._goes_on(made[rows[place]], max_new_tokens)]
            if not alive:
                return made
            if 2 * len(alive) <= len(rows):
                kept = to_device(np.array(alive, dtype=np.int64), self.network.device)
                state, captured = self._enter(state.take(kept))
                rows, alive = [rows[place] for place in alive], list(range(len(alive)))
            filled = [lengths[rows[place]] + len(made[rows[place]]) for place in alive]
            stop = self._rounded(max(filled))
            if captured is None:
                self.step(state, stop, is_even=min(filled) == stop)
            else:
                captured.replay(min((state.capacity - stop) // self._slot_multiple, _WINDOWS - 1))

    def _enter(self, state: DecodeState) -> tuple[DecodeState, Captured[DecodeState] | None]:
        """Where a state's steps run: in that of a graph, or as it is."""
        if self._graphs is None:
            return state, None
        captured = self._graphs.enter(state)
        return captured.state, captured

    def _goes_on(self, made: Sequence[int], max_new_tokens: int) -> bool:
        return made[-1] != self.network.architecture.eos_id and len(made) < max_new_tokens

    def _step_reading_less(self, state: DecodeState, multiples: int) -> Tensor:
        """A step that does not read the last `multiples` of the cache's slots, where it has more than these."""
        return self.step(state, max(self._slot_multiple, state.capacity - multiples * self._slot_multiple))

    def _rounded(self, slots: int) -> int:
        return -(-slots // self._slot_multiple) * self._slot_multiple
