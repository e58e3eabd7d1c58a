"""Flow sampling without a cache: every step runs prefix, actions and what trails them, as other programs do.

The same modules, weights and noise as flow.py, so that benchmarks and tests can compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from policyserve.policies.wall_x.architecture import ACTION
from policyserve.policies.wall_x.attention import (
    AttentionMode,
    Rule,
    as_bias,
    heads_joined,
    postfix_mask,
    prompt_attention,
)
from policyserve.policies.wall_x.decoder import spans_of
from policyserve.policies.wall_x.encoder import ImageEncoder
from policyserve.policies.wall_x.flow import FlowSampler
from policyserve.policies.wall_x.flow_state import FlowState
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.network import Network
from policyserve.policies.wall_x.rope import Rotation
from policyserve.policies.wall_x.sequence import Prefix, embed_prefix, layout_of, rotate_by, to_device


@dataclass(frozen=True)
class FullState:
    """One batch on its way. flow: x and the action head's constants. trailing: (B, n, hidden). rotation: of all."""

    flow: FlowState
    prefix: Prefix
    trailing: Tensor
    rotation: Rotation


class FullSampler:
    """As FlowSampler, all tokens at every step."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._flow = FlowSampler(network)
        self._folded = network.action_head.fold()

    def prepare(self, items: Sequence[ModelInput], attention: AttentionMode, num_steps: int) -> FullState:
        """Embed everything but the actions."""
        network = self.network
        layouts = [layout_of(item, network.architecture) for item in items]
        pairs = list(zip(items, layouts, strict=True))
        trailing = np.stack([item.input_ids[layout.prefix + layout.actions :] for item, layout in pairs])
        prefix = embed_prefix(network, items, layouts, ImageEncoder(network)(items))
        postfix = rotate_by(network, np.stack([layout.positions[:, layout.prefix :] for layout in layouts], axis=1))
        return FullState(
            flow=self._flow.prepare(items, attention, num_steps),
            prefix=prefix,
            trailing=network.decoder.embed(to_device(trailing.astype(np.int64), network.device)),
            rotation=Rotation(
                torch.cat((prefix.rotation.cos, postfix.cos), dim=1),
                torch.cat((prefix.rotation.sin, postfix.sin), dim=1),
            ),
        )

    def step(self, state: FullState, k: int) -> tuple[Tensor, Tensor]:
        """One Euler step over everything. Returns the actions' hidden states (B, H, hidden) and v (B, H, A)."""
        network, flow, actions = self.network, state.flow, state.flow.schedule.actions
        constant = flow.of_masks + flow.of_times[k]
        embedded = network.action_head.embed_actions(flow.x, self._folded, constant).to(network.dtype)
        x = torch.cat((state.prefix.x, embedded, state.trailing), dim=1)
        start, trailing = state.prefix.x.shape[1], state.trailing.shape[1]
        bias = self._bias(flow.schedule.rules[k], state)

        a = network.architecture
        keys, values = (x.new_empty(len(x), a.kv_heads, x.shape[1], a.head_dim) for _ in range(2))  # of one layer

        def attend(layer: int, qkv: Tensor, rotation: Rotation) -> Tensor:
            queries = rotation.store(qkv, keys, values)
            if bias is None:
                return prompt_attention(queries, keys, values)
            mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, enable_gqa=True)
            return heads_joined(mixed)

        hidden = network.decoder(x, spans_of(text=start, actions=actions, trailing=trailing), state.rotation, attend)
        hidden = network.decoder.norm(hidden[:, start : start + actions], ((ACTION, actions),))
        velocities = network.action_head.velocities(hidden)
        flow.x.add_(velocities, alpha=flow.schedule.deltas[k])
        return hidden, velocities

    def run(self, state: FullState) -> None:
        """All steps; `state.flow.x` ends at the actions."""
        for k in range(len(state.flow.schedule.rules)):
            self.step(state, k)

    def _bias(self, rule: Rule, state: FullState) -> Tensor | None:
        """None: plain causal."""
        lengths, start = state.prefix.lengths, state.prefix.x.shape[1]
        if rule == "causal" and min(lengths) == start:
            return None
        postfix = postfix_mask(rule, state.flow.schedule.actions, state.trailing.shape[1])
        size = start + postfix.shape[0]
        mask = torch.ones(len(lengths), size, size, dtype=torch.bool).tril()
        mask[:, start:, start:] = postfix
        for row, length in enumerate(lengths):
            mask[row, start:, length:start] = False
        return as_bias(mask, self.network.dtype)[:, None].to(self.network.device)
