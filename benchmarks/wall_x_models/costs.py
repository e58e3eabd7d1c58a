"""What each stage of a Wall-X request must compute and read, from the network's sizes alone.

FLOPs: two for each weight of a matrix and each token that meets it, and four for each pair of query and key and each
channel of a head; norms, rotations and activations are left out. bytes: each weight once for each stage that reads it,
and keys and values; activations stay in caches, and are left out as well. So it is what no way of computing can avoid,
the same on a CPU and on a GPU, whatever kernels run there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policyserve.policies.wall_x.architecture import ACTION, TEXT, Architecture
from policyserve.policies.wall_x.attention import AttentionMode, needs_trailing, postfix_rule

_FLOAT32_BYTES = 4  # of the action head, whatever the rest is


@dataclass(frozen=True)
class Cost:
    """FLOPs and bytes of a stage."""

    flops: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, bandwidth: float, matmul: float) -> float:
        """The longer of what the bytes and the FLOPs take at these rates per second."""
        return max(self.bytes / bandwidth, self.flops / matmul)


@dataclass(frozen=True)
class Costs:
    """The costs of one network's stages. vocabulary: rows of its embedding; item: bytes of one number."""

    architecture: Architecture
    vocabulary: int
    item: int

    def vision(self, grids: Sequence[tuple[int, int]]) -> Cost:
        """All images of a batch. grids: rows and columns of each, in patches."""
        a = self.architecture.vision
        channels, time, height, width = a.patch_shape
        block = a.width * (4 * a.width + 3 * a.inner)
        merger = (a.width * a.merge**2) * (a.width * a.merge**2 + a.out_width)
        embedding = channels * time * height * width * a.width
        patches = sum(rows * columns for rows, columns in grids)
        matrices = patches * (embedding + a.depth * block) + patches // a.merge**2 * merger
        full = len([index for index in a.full_blocks if index < a.depth])
        pairs = full * sum((rows * columns) ** 2 for rows, columns in grids)
        pairs += (a.depth - full) * sum(length**2 for grid in grids for length in self._windows(*grid))
        return Cost(2 * matrices + 4 * pairs * a.width, self.item * (embedding + a.depth * block + merger))

    def prefill(self, tokens: int, batch: int = 1) -> Cost:
        """Prefixes of this many tokens each; of the last layer, keys and values alone would do, but all is counted."""
        pairs = batch * tokens * (tokens + 1) / 2  # causal
        return self._decoder((TEXT,), {TEXT: batch * tokens}, pairs) + Cost(0, batch * tokens * self._cached_token)

    def flow_step(self, prefix: int, actions: int, *, trailing: int = 0, batch: int = 1) -> Cost:
        """One Euler step behind prefixes of this many tokens each."""
        tokens = actions + trailing
        pairs = batch * tokens * (prefix + tokens)
        kinds = {ACTION: batch * actions, TEXT: batch * trailing}
        read = batch * (prefix + tokens) * self._cached_token
        return (
            self._decoder((ACTION, TEXT) if trailing else (ACTION,), kinds, pairs)
            + Cost(0, read)
            + self._head(batch * actions)
        )

    def flow_steps(
        self, mode: AttentionMode, steps: int, prefix: int, actions: int, *, trailing: int = 0, batch: int = 1
    ) -> Cost:
        """All Euler steps: those that see what trails the actions compute it too."""
        total = Cost(0, 0)
        for step in range(steps):
            rule = postfix_rule(mode, step, has_attention_experts=self.architecture.has_attention_experts)
            seen = trailing if needs_trailing(rule) else 0
            total += self.flow_step(prefix, actions, trailing=seen, batch=batch)
        return total

    def fast_token(self, prefix: int, batch: int = 1) -> Cost:
        """One token of each sequence behind this many others, and its logits."""
        head = self.vocabulary * self.architecture.hidden
        one = self._decoder((TEXT,), {TEXT: batch}, batch * (prefix + 1))
        return one + Cost(2 * head * batch, self.item * head + batch * prefix * self._cached_token)

    @property
    def _cached_token(self) -> float:
        """Bytes of one token's keys and values in all layers."""
        a = self.architecture
        return 2 * a.layers * a.kv_heads * a.head_dim * self.item

    def _decoder(self, kinds: Sequence[int], tokens: dict[int, int], pairs: float) -> Cost:
        """All layers. tokens: of each type; pairs: of a query and a key, in one layer and one head."""
        a = self.architecture
        by_kind = {kind: 3 * a.experts[kind].width * a.experts[kind].inner for kind in (TEXT, ACTION)}
        heads = (a.heads + 2 * a.kv_heads) * a.head_dim
        widths = {kind: a.experts[kind].width if a.has_attention_experts else a.hidden for kind in (TEXT, ACTION)}
        mixing = {kind: width * (heads + a.heads * a.head_dim) for kind, width in widths.items()}
        flops = sum(2 * count * (by_kind[kind] + mixing[kind]) for kind, count in tokens.items())
        read = sum(by_kind[kind] for kind in kinds)
        read += sum(mixing[kind] for kind in (kinds if a.has_attention_experts else kinds[:1]))
        return Cost(a.layers * (flops + 4 * pairs * a.heads * a.head_dim), a.layers * read * self.item)

    def _head(self, actions: int) -> Cost:
        """The action head at one step; what masks and times add is the same at all steps and not counted."""
        a = self.architecture
        weights = a.action_hidden * (2 * a.action_dim + a.action_hidden)
        return Cost(2 * actions * weights, weights * _FLOAT32_BYTES)

    def _windows(self, rows: int, columns: int) -> list[int]:
        """The lengths of an image's attention windows, in patches."""
        a = self.architecture.vision
        sides = [
            [min(a.window_cells, cells - start) for start in range(0, cells, a.window_cells)]
            for cells in (rows // a.merge, columns // a.merge)
        ]
        return [high * wide * a.merge**2 for high in sides[0] for wide in sides[1]]
