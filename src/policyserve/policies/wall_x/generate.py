"""FAST's tokens: the prompts once, then greedy decoding, one token of every sequence at a time.

Each sequence's tokens go to its own next slot of one cache, over the padding of shorter prompts. A sequence that has
ended leaves the batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policyserve.policies.wall_x.architecture import TEXT
from policyserve.policies.wall_x.attention import as_bias, grouped_attention, prompt_attention
from policyserve.policies.wall_x.decoder import KvCache, spans_of
from policyserve.policies.wall_x.graphs import Capture, Graphs
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.network import Network
from policyserve.policies.wall_x.rope import Rotation, decoder_angles, rotation_of
from policyserve.policies.wall_x.sequence import embed_prefix, layout_of


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
    def key(self) -> Hashable:
        return None

    @property
    def shape(self) -> str:
        """See graphs.State."""
        return f"batches of up to {len(self.ids)}, prompt and answer of up to {self.cache.keys.shape[3]} tokens"

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

        slot_multiple: caches have a multiple of this many slots, so that few shapes occur.
        capture: for one step, see graphs.py; None: it runs plainly.
        """
        self.network = network
        self._slot_multiple = slot_multiple
        self._graphs: Graphs[DecodeState] | None = None
        if capture is not None:
            self._graphs = Graphs(lambda state: self.step(state, state.cache.keys.shape[3]), capture)

    @property
    def graphs(self) -> Graphs[DecodeState] | None:
        """Those of one step; None where it runs plainly."""
        return self._graphs

    def prepare(self, items: Sequence[ModelInput], max_new_tokens: int) -> tuple[DecodeState, Tensor]:
        """Run the prompts. Returns the state, its ids the first new tokens, and those tokens' logits (B, V).

        Raises ValueError for a prompt with action tokens.
        """
        network, decoder = self.network, self.network.decoder
        layouts = [layout_of(item, network.architecture) for item in items]
        if any(layout.actions for layout in layouts):
            raise ValueError("a prompt for FAST ends before any action token")
        prefix = embed_prefix(network, items, layouts)
        batch, longest = prefix.x.shape[:2]
        slots = -(-(longest + max_new_tokens) // self._slot_multiple) * self._slot_multiple
        cache = decoder.empty_cache(batch, slots)

        def attend(layer: int, qkv: Tensor, rotation: Rotation) -> Tensor:
            keys, values = cache.keys[layer], cache.values[layer]
            queries = rotation.store(qkv, keys, values)
            return prompt_attention(queries, keys[:, :, :longest], values[:, :, :longest])

        hidden = decoder(prefix.x, spans_of(text=longest), prefix.rotation, attend)
        lengths = torch.tensor(prefix.lengths, device=network.device)
        last = hidden[torch.arange(batch, device=network.device), lengths - 1][:, None]  # (B, 1, hidden)
        logits = decoder.logits(decoder.norm(last, ((TEXT, 1),))[:, 0])  # (B, V)
        positions = torch.tensor([int(layout.positions.max()) + 1 for layout in layouts], device=network.device)
        return DecodeState(cache, logits.argmax(dim=-1), lengths, positions), logits

    def step(self, state: DecodeState, stop: int, *, is_even: bool = False) -> Tensor:
        """Feed the newest tokens; `state` moves on to the next ones. Returns their logits (B, V).

        stop: look at this many slots, more than any sequence has. is_even: all sequences fill them to the last one.
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
        hidden = decoder(x, spans_of(text=1), rotation_of(angles, network.dtype), attend)
        logits = decoder.logits(decoder.norm(hidden, ((TEXT, 1),))[:, 0])
        state.ids.copy_(logits.argmax(dim=-1))
        state.slots.add_(1)
        state.positions.add_(1)
        return logits

    def run(self, items: Sequence[ModelInput], max_new_tokens: int) -> list[list[int]]:
        """New tokens of each input, the end token included where it came in time."""
        if max_new_tokens < 1:
            return [[] for _ in items]
        state, _ = self.prepare(items, max_new_tokens)
        captured = None if self._graphs is None else self._graphs.enter(state)
        state = state if captured is None else captured.state
        lengths = state.slots.tolist()
        made: list[list[int]] = [[] for _ in items]
        alive = list(range(len(items)))
        while True:
            for row, token in zip(alive, state.ids.tolist(), strict=False):  # a graph has more rows than are alive
                made[row].append(token)
            going = [
                place
                for place, row in enumerate(alive)
                if made[row][-1] != self.network.architecture.eos_id and len(made[row]) < max_new_tokens
            ]
            if not going:
                return made
            if len(going) < len(alive):
                alive = [alive[place] for place in going]
                state = state.take(torch.tensor(going, device=self.network.device))
                if self._graphs is not None:
                    captured = self._graphs.enter(state)
                    state = captured.state
            if captured is not None:
                captured.replay()
                continue
            filled = [lengths[row] + len(made[row]) for row in alive]
            self.step(state, max(filled), is_even=min(filled) == max(filled))
