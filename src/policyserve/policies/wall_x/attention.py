"""Who attends to whom, and the attention of few queries over a long cache.

The prefix (all before the first action token) is causal among itself and never sees what follows. What follows sees
the whole prefix. Among itself it depends on the semantics, of which three exist (SPEC: "Attention of the postfix"):

causal         plain causal at every step.
bidir_island   causal, and all action tokens see each other.
upstream_sdpa  the first step causal (bidir_island where the projections are per token type), every later one without
               any mask: the actions then see the trailing tokens too.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

AttentionMode = Literal["upstream_sdpa", "bidir_island", "causal"]
ATTENTION_MODES: tuple[AttentionMode, ...] = get_args(AttentionMode)
Rule = Literal["causal", "island", "all"]


def postfix_rule(mode: AttentionMode, step: int, *, has_attention_experts: bool) -> Rule:
    """What holds among the postfix's tokens at one Euler step."""
    if mode == "causal":
        return "causal"
    if mode == "bidir_island":
        return "island"
    if step > 0:
        return "all"
    return "island" if has_attention_experts else "causal"


def needs_trailing(rule: Rule) -> bool:
    """Whether action tokens see the tokens after them, so that those must be computed."""
    return rule == "all"


def postfix_mask(rule: Rule, actions: int, trailing: int, device: torch.device | None = None) -> Tensor:
    """True where a query (row) of the postfix sees a key of it. (actions + trailing, actions + trailing) bool."""
    size = actions + trailing
    mask = torch.ones(size, size, dtype=torch.bool, device=device)
    if rule == "all":
        return mask
    mask = mask.tril()
    if rule == "island":
        mask[:actions, :actions] = True
    return mask


def as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as what is added to the scores: 0 where True, minus infinity elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def grouped_bias(mask: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """The bias for `grouped_attention`. mask: (B or 1, S, K) bool. Returns (B or 1, 1, groups · S, K)."""
    return as_bias(mask, dtype).repeat(1, groups, 1)[:, None]


def prompt_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of a prompt among itself, padding on its right where no real token looks.

    queries: (B, heads, L, D); keys, values: (B, kv_heads, L, D). Returns (B, L, heads · D).
    """
    return heads_joined(F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True))


def grouped_attention(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention where the query heads that share a key head are stacked along the rows: keys are read once, not copied.

    queries: (B, heads, S, D); keys, values: (B, kv_heads, K, D); bias: see grouped_bias, or None: all see all.
    Returns (B, S, heads · D).
    """
    batch, heads, length, width = queries.shape
    kv_heads = keys.shape[1]
    stacked = queries.reshape(batch, kv_heads, heads // kv_heads * length, width)
    out = F.scaled_dot_product_attention(stacked, keys, values, attn_mask=bias)
    # The kernels of a GPU lay their results out each in its own way, so nothing here may need a certain one: cutting an
    # axis in two is a view of every layout, and the one copy is made by flatten.
    parts = out.unflatten(2, (heads // kv_heads, length))  # (B, kv_heads, groups, S, D)
    return parts.permute(0, 3, 1, 2, 4).flatten(2)


def heads_joined(mixed: Tensor) -> Tensor:
    """What attention gives, (B, heads, S, D), as the product after it takes it: (B, S, heads · D)."""
    return mixed.transpose(1, 2).flatten(2)
