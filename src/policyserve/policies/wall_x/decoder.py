"""The text and action decoder: grouped-query attention, and layers chosen by a token's type.

A sequence is a few spans of one type each (`Spans`): the prefix and what trails the actions are text, the actions
between them are their own. Routing is therefore slicing, never gathering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policyserve.policies.wall_x.architecture import ACTION, TEXT, Architecture
from policyserve.policies.wall_x.layers import Linear, RmsNorm, SwiGlu, weight
from policyserve.policies.wall_x.rope import Rotation

Spans = tuple[tuple[int, int], ...]  # (token type, length), in order
Parts = tuple[Tensor, ...]  # (B, length, C) of each span, or all of them in one
# (layer, queries, keys and values (B, S, heads + 2 · kv_heads, D), their rotation) -> (B, S, heads · D), or None:
# nobody needs what this layer would give, which its keys and values do not depend on
Attend = Callable[[int, Tensor, Rotation], Tensor | None]


@dataclass(frozen=True)
class KvCache:
    """Keys (turned) and values of every layer. Both (layers, B, kv_heads, capacity, D)."""

    keys: Tensor
    values: Tensor

    def take(self, rows: Tensor) -> KvCache:
        return KvCache(self.keys[:, rows], self.values[:, rows])


def spans_of(*, text: int = 0, actions: int = 0, trailing: int = 0) -> Spans:
    """The spans of a sequence: a prefix, actions, and text after them; empty ones left out."""
    return tuple((kind, n) for kind, n in ((TEXT, text), (ACTION, actions), (TEXT, trailing)) if n)


class Decoder(nn.Module):
    """Embeddings in, normed hidden states out. Who attends to whom is the caller's: see `Attend`."""

    def __init__(self, architecture: Architecture, vocabulary: int, *, has_own_head: bool) -> None:
        super().__init__()
        self.architecture = architecture
        self.embed_tokens = weight(vocabulary, architecture.hidden)
        self.layers = nn.ModuleList(_Layer(architecture, index) for index in range(architecture.layers))
        self.norm = _norm(architecture)
        self.lm_head = weight(vocabulary, architecture.hidden) if has_own_head else None

    def forward(self, x: Tensor, spans: Spans, rotation: Rotation, attend: Attend) -> Tensor:
        """x: (B, S, hidden); rotation: (B, S, 1, D/2). Returns (B, S, hidden), before the final norm."""
        x, added = self._run(x, spans, rotation, attend)
        return x if added is None else x + _joined(added)

    def first_normed(self, x: Tensor, spans: Spans, rotation: Rotation, attend: Attend) -> Tensor:
        """Give the hidden states of the first span alone, after the final norm: (B, its length, hidden)."""
        x, added = self._run(x, spans, rotation, attend)
        first, length = spans[:1], spans[0][1]
        if added is None:
            return self.norm(x[:, :length], first)
        return self.norm.after_sum(x[:, :length], (added[0][:, :length],), first)[1]

    def _run(self, x: Tensor, spans: Spans, rotation: Rotation, attend: Attend) -> tuple[Tensor, Parts | None]:
        added: Parts | None = None  # what the layer before adds to x, left to the next norm
        for layer in self.layers:
            x, added = layer(x, added, spans, rotation, attend)
        return x, added

    def embed(self, ids: Tensor) -> Tensor:
        return torch.nn.functional.embedding(ids, self.embed_tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: (…, hidden), after the final norm. Returns (…, vocabulary)."""
        return nn.functional.linear(hidden, self.embed_tokens if self.lm_head is None else self.lm_head)

    def empty_cache(self, batch: int, capacity: int) -> KvCache:
        a = self.architecture
        shape = (a.layers, batch, a.kv_heads, capacity, a.head_dim)
        like = self.embed_tokens
        return KvCache(*(torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2)))


class _Layer(nn.Module):
    def __init__(self, a: Architecture, index: int) -> None:
        super().__init__()
        self._index, self._all_heads = index, a.heads + 2 * a.kv_heads
        self.input_norm = _norm(a)
        self.qkv = ByType(
            [Linear(width, (a.heads + 2 * a.kv_heads) * a.head_dim, bias=True) for width in _attention_widths(a)]
        )
        self.out = ByType([Linear(a.heads * a.head_dim, width, bias=False) for width in _attention_widths(a)], a.hidden)
        self.post_norm = _norm(a)
        self.mlp = ByType([SwiGlu(expert.width, expert.inner, bias=False) for expert in a.experts])

    def forward(
        self, x: Tensor, added: Parts | None, spans: Spans, rotation: Rotation, attend: Attend
    ) -> tuple[Tensor, Parts | None]:
        """Take x and what is still to be added to it; give the same of this layer."""
        x, normed = (x, self.input_norm(x, spans)) if added is None else self.input_norm.after_sum(x, added, spans)
        mixed = attend(self._index, self.qkv(normed, spans).unflatten(-1, (self._all_heads, -1)), rotation)
        if mixed is None:
            return x, None
        x, normed = self.post_norm.after_sum(x, self.out.parts(mixed, spans), spans)
        return x, self.mlp.parts(normed, spans)


class ByType(nn.Module):
    """One module for all tokens, or one for each type. Inputs are cut and outputs padded with zeros to fit."""

    def __init__(self, modules: Sequence[nn.Module], out_width: int | None = None) -> None:
        super().__init__()
        self.of = nn.ModuleList(modules)
        self._out_width = out_width

    def forward(self, x: Tensor, spans: Spans) -> Tensor:
        """x: (B, S, C), S the sum of the spans."""
        return _joined(self.parts(x, spans))

    def parts(self, x: Tensor, spans: Spans) -> Parts:
        """Give what the call gives, not yet joined."""
        if len(self.of) == 1:
            return (self._run(0, x),)
        if len(spans) == 1:
            return (self._run(spans[0][0], x),)
        parts = x.split([length for _, length in spans], dim=1)
        modules = [self.of[kind] for kind, _ in spans]
        if len(spans) == 2 and isinstance(modules[0], SwiGlu) and isinstance(modules[1], SwiGlu):
            return modules[0].beside(parts[0], modules[1], parts[1])
        return tuple(self._run(kind, part) for (kind, _), part in zip(spans, parts, strict=True))

    def after_sum(self, x: Tensor, added: Parts, spans: Spans) -> tuple[Tensor, Tensor]:
        """Of norms: x + added, and its norm."""
        if len(self.of) == 1 or len(spans) == 1:
            norm = self.of[0 if len(self.of) == 1 else spans[0][0]]
            assert isinstance(norm, RmsNorm)
            return norm.after_sum(x, *added) if len(added) <= 2 else norm.after_sum(x, _joined(added))
        return (total := x + _joined(added)), self(total, spans)

    def _run(self, kind: int, x: Tensor) -> Tensor:
        module = self.of[kind]
        y = module(x[..., : module.weight.shape[1]] if isinstance(module, Linear) else x)
        missing = 0 if self._out_width is None else self._out_width - y.shape[-1]
        return nn.functional.pad(y, (0, missing)) if missing else y


def _joined(parts: Parts) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _norm(a: Architecture) -> ByType:
    widths = [expert.width for expert in a.experts] if a.has_norm_experts else [a.hidden]
    return ByType([RmsNorm(width, a.norm_epsilon) for width in widths])


def _attention_widths(a: Architecture) -> list[int]:
    return [expert.width for expert in a.experts] if a.has_attention_experts else [a.hidden]
