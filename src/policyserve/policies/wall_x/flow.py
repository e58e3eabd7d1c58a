"""Flow sampling: the prefix once, then T Euler steps over the action tokens alone.

The prefix never sees what follows it and does not know the time, so its keys and values are the same at every step:
`FlowSampler.prepare` computes them once, and `step` runs the actions (and, where they are seen, the tokens after them)
against that cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from policyserve.core.arrays import Array
from policyserve.policies.rtc import Rtc
from policyserve.policies.wall_x.attention import (
    AttentionMode,
    Rule,
    grouped_attention,
    grouped_bias,
    needs_trailing,
    postfix_mask,
    postfix_rule,
    prompt_attention,
)
from policyserve.policies.wall_x.decoder import KvCache, spans_of
from policyserve.policies.wall_x.encoder import ImageEncoder
from policyserve.policies.wall_x.flow_state import FlowState, Request, Schedule
from policyserve.policies.wall_x.graphs import Capture, Graphs
from policyserve.policies.wall_x.guidance import Guidance, Guide, guidance_of, guide_arrays, guided, placed
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.network import Network
from policyserve.policies.wall_x.rope import Rotation
from policyserve.policies.wall_x.sequence import Layout, Prefix, embed_prefix, layout_of, rotate_by, to_device

_VECTOR = 8  # numbers of 16 bits that a GPU reads at once


class FlowSampler:
    """Samples action chunks. One network, one thread."""

    def __init__(self, network: Network, *, slot_multiple: int = 1, capture: Capture | None = None) -> None:
        """Store what the sampler works with.

        slot_multiple: prefixes take this many slots of the cache, or a multiple, so that few shapes occur.
        capture: for images, and for prefill and Euler steps, see graphs.py; None: they run plainly.
        """
        self.network = network
        self.images = ImageEncoder(network, capture)
        self._slot_multiple = slot_multiple
        self._graphs: Graphs[Request] | None = None if capture is None else Graphs([self.answer], capture)
        self._folded = network.action_head.fold()
        self._times: dict[int, Tensor] = {}  # by the number of steps, which is a server's setting and no client's

    @property
    def graphs(self) -> Graphs[Request] | None:
        """Those of whole requests from their prefill on; None where they run plainly."""
        return self._graphs

    def sample(
        self, items: Sequence[ModelInput], attention: AttentionMode, num_steps: int, how: Rtc | None = None
    ) -> Tensor:
        """Normalised actions (B, H, A), on the device. how: for inputs with a prefix; None: it is not looked at.

        Where that is `guided`, call it outside of inference_mode(), whose tensors have no derivative. Raises ValueError
        for inputs that do not fit.
        """
        request = self.gather(items, attention, num_steps, how)
        if self._graphs is None:
            return self.answer(request)
        captured = self._graphs.enter(request)
        captured.replay()
        return captured.state.state.x[: len(items)]

    def prepare(
        self, items: Sequence[ModelInput], attention: AttentionMode, num_steps: int, how: Rtc | None = None
    ) -> FlowState:
        """Run images and prefixes and gather all that the steps need. Raises ValueError for inputs that do not fit."""
        return self.begin(self.gather(items, attention, num_steps, how))

    def gather(
        self, items: Sequence[ModelInput], attention: AttentionMode, num_steps: int, how: Rtc | None = None
    ) -> Request:
        """Run images and bring what the rest needs to the device. Raises ValueError for inputs that do not fit."""
        layouts = [layout_of(item, self.network.architecture) for item in items]
        _check(items, layouts)
        schedule = self._schedule(layouts, attention, num_steps, guidance_of(items, how, num_steps))
        images = self.images(items)  # first: a GPU works on them while the host gathers the rest
        prefix = embed_prefix(self.network, items, layouts, images, slots=schedule.prefix)
        actions, trailing = schedule.actions, schedule.trailing
        masks = self._stack([item.dof_mask for item in items])
        of_masks, of_times = self.network.action_head.constants(masks, self._times_of(num_steps))
        ids = np.stack([item.input_ids[layout.prefix + actions :] for item, layout in zip(items, layouts, strict=True)])
        positions = np.stack([layout.positions[:, layout.prefix :] for layout in layouts], axis=1)
        x = self._stack([item.noise for item in items])
        state = FlowState(
            schedule=schedule,
            cache=self.network.decoder.empty_cache(len(items), 0),
            x=x,
            of_masks=of_masks,
            of_times=of_times,
            trailing=self.network.decoder.embed(to_device(ids[:, :trailing].astype(np.int64), self.network.device)),
            rotation=rotate_by(self.network, positions[:, :, : actions + trailing]),
            biases=self._biases(prefix.lengths, schedule),
            guide=None if schedule.guidance is None or how is None else self._guide(items, how, x),
        )
        return Request(prefix, state)

    def begin(self, request: Request) -> FlowState:
        """Run the prefixes: the state before the first step."""
        return replace(request.state, cache=self._prefill(request.prefix, request.state.schedule))

    def answer(self, request: Request) -> Tensor:
        """All of a request after its images: prefill and steps. Returns the actions, its state's x."""
        state = self.begin(request)
        self.run(state)
        return state.x

    def step(self, state: FlowState, k: int) -> tuple[Tensor, Tensor]:
        """One Euler step; `state.x` moves on. Returns the actions' hidden states (B, H, hidden) and v (B, H, A)."""
        guidance, guide = state.schedule.guidance, state.guide
        if guidance is None or guide is None:
            hidden, velocities = self.velocity_at(state, state.x, k)
        elif guidance.method == "inpaint":
            state.x.copy_(placed(guide, state.x, k / len(guidance.strengths)))
            hidden, velocities = self.velocity_at(state, state.x, k)
        else:
            hidden, velocities = guided(guidance, guide, state.x, k, lambda x: self.velocity_at(state, x, k))
        state.x.add_(velocities, alpha=state.schedule.deltas[k])
        return hidden, velocities

    def velocity_at(self, state: FlowState, noisy: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Step k's hidden states of the actions (B, H, hidden) and their velocities (B, H, A) at `noisy`."""
        schedule, network = state.schedule, self.network
        rule = schedule.rules[k]
        trailing = schedule.trailing if needs_trailing(rule) else 0
        constant = state.of_masks + state.of_times[k]
        x = network.action_head.embed_actions(noisy, self._folded, constant).to(network.dtype)
        if trailing:
            x = torch.cat((x, state.trailing), dim=1)
        start, bias = schedule.prefix, state.biases.get(rule)
        stop = start + x.shape[1] if bias is None else bias.shape[-1]

        def attend(layer: int, qkv: Tensor, rotation: Rotation) -> Tensor:
            keys, values = state.cache.keys[layer], state.cache.values[layer]
            if qkv.requires_grad:  # a derivative must not be written over
                queries, *new = rotation.parts(qkv, keys.shape[1])
                keys, values = (
                    torch.cat((old[:, :, :start], one), 2) for old, one in zip((keys, values), new, strict=True)
                )
                return grouped_attention(queries, keys, values, None if bias is None else bias[..., : keys.shape[2]])
            queries = rotation.store(qkv, keys, values, start)
            return grouped_attention(queries, keys[:, :, :stop], values[:, :, :stop], bias)

        spans = spans_of(actions=schedule.actions, trailing=trailing)
        hidden = network.decoder.first_normed(x, spans, state.rotation[:, : x.shape[1]], attend)
        return hidden, network.action_head.velocities(hidden)

    def run(self, state: FlowState) -> None:
        """All steps; `state.x` ends at the actions."""
        for k in range(len(state.schedule.rules)):
            self.step(state, k)
        guidance = state.schedule.guidance
        if guidance is not None and state.guide is not None and guidance.method == "inpaint":
            state.x.copy_(placed(state.guide, state.x, 1))

    def _times_of(self, num_steps: int) -> Tensor:
        """(T,) float32: when each step begins. They travel to the device once."""
        if num_steps not in self._times:
            with torch.inference_mode(False):  # whose tensors steps with a derivative could not use
                times = torch.linspace(0, 1, num_steps + 1)[:-1].numpy()
                self._times[num_steps] = to_device(times, self.network.device)
        return self._times[num_steps]

    def _guide(self, items: Sequence[ModelInput], how: Rtc, x: Tensor) -> Guide:
        rows, weights = guide_arrays(items, how)
        return Guide(self._stack([*rows]), self._stack([*weights]), x.clone())

    def _schedule(
        self, layouts: Sequence[Layout], attention: AttentionMode, num_steps: int, guidance: Guidance | None
    ) -> Schedule:
        a = self.network.architecture
        mode: AttentionMode = attention
        if attention == "upstream_sdpa" and a.is_action_attention_causal:
            mode = "causal"
        rules: list[Rule] = []
        for step in range(num_steps):
            rules.append(postfix_rule(mode, step, has_attention_experts=a.has_attention_experts))
        trailing = layouts[0].trailing if any(needs_trailing(rule) for rule in rules) else 0
        slots = -(-max(layout.prefix for layout in layouts) // self._slot_multiple) * self._slot_multiple
        deltas = np.diff(torch.linspace(0, 1, num_steps + 1).numpy())
        by_step = tuple(rules), tuple(float(delta) for delta in deltas)
        return Schedule(*by_step, layouts[0].actions, trailing, slots, guidance)

    def _prefill(self, prefix: Prefix, schedule: Schedule) -> KvCache:
        """Keys and values of the prefix, in a cache that has room for the postfix."""
        decoder = self.network.decoder
        length = prefix.x.shape[1]
        room = self._whole_vectors(schedule.prefix + schedule.actions + schedule.trailing)
        cache = decoder.empty_cache(prefix.x.shape[0], room)

        def attend(layer: int, qkv: Tensor, rotation: Rotation) -> Tensor | None:
            keys, values = cache.keys[layer], cache.values[layer]
            queries = rotation.store(qkv, keys, values)
            is_last = layer == decoder.architecture.layers - 1
            return None if is_last else prompt_attention(queries, keys[:, :, :length], values[:, :, :length])

        decoder(prefix.x, spans_of(text=length), prefix.rotation, attend)
        return cache

    def _biases(self, lengths: Sequence[int], schedule: Schedule) -> dict[Rule, Tensor]:
        found: dict[Rule, Tensor] = {}
        for rule in schedule.rules:
            if rule not in found and (bias := self._bias(rule, lengths, schedule)) is not None:
                found[rule] = bias
        return found

    def _bias(self, rule: Rule, lengths: Sequence[int], schedule: Schedule) -> Tensor | None:
        """The bias of one rule over [prefix slots, postfix]; None where every query sees every key."""
        network, a = self.network, self.network.architecture
        trailing = schedule.trailing if needs_trailing(rule) else 0
        if rule == "all" and min(lengths) == schedule.prefix and self._slot_multiple == 1:
            return None
        is_shared = len(set(lengths)) == 1 and self._graphs is None  # one row serves all; graphs want equal shapes
        different = lengths[:1] if is_shared else lengths
        postfix = postfix_mask(rule, schedule.actions, trailing).numpy()  # (S, S)
        start, stop = schedule.prefix, schedule.prefix + len(postfix)
        mask = np.zeros((len(different), len(postfix), self._whole_vectors(stop)), dtype=bool)
        mask[:, :, :start] = (np.arange(start) < np.array(different)[:, None])[:, None]
        mask[:, :, start:stop] = postfix
        return grouped_bias(to_device(mask, network.device), a.heads // a.kv_heads, network.dtype)

    def _whole_vectors(self, slots: int) -> int:
        """As many slots, or some more on a GPU: attention copies a bias whose rows are no whole vectors."""
        return slots if self._slot_multiple == 1 else -(-slots // _VECTOR) * _VECTOR

    def _stack(self, arrays: Sequence[Array | None]) -> Tensor:
        return to_device(
            np.stack([np.asarray(array, dtype=np.float32) for array in arrays]), self.network.device
        ).clone()


def _check(items: Sequence[ModelInput], layouts: Sequence[Layout]) -> None:
    if len({(layout.actions, layout.trailing) for layout in layouts}) != 1:
        raise ValueError("the inputs of a batch must have equally many actions and tokens after them")
    for item, layout in zip(items, layouts, strict=True):
        if item.noise is None or item.noise.shape != item.dof_mask.shape or len(item.noise) != layout.actions:
            shape = None if item.noise is None else item.noise.shape
            raise ValueError(f"noise: expected {(layout.actions, item.dof_mask.shape[-1])}, got {shape}")
