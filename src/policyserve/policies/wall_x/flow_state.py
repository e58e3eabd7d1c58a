"""What flow sampling works on: a batch on its way through the Euler steps, and before its prefill."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from policyserve.policies.wall_x.attention import Rule
from policyserve.policies.wall_x.decoder import KvCache
from policyserve.policies.wall_x.guidance import Guidance, Guide
from policyserve.policies.wall_x.rope import Rotation
from policyserve.policies.wall_x.sequence import Prefix


@dataclass(frozen=True)
class Schedule:
    """What a run of Euler steps has in common with others, so that one CUDA graph serves them all."""

    rules: tuple[Rule, ...]  # of each step
    deltas: tuple[float, ...]  # t_{k+1} - t_k
    actions: int
    trailing: int
    prefix: int  # slots of the cache before the actions
    guidance: Guidance | None = None  # None: plain steps


@dataclass(frozen=True)
class FlowState:
    """One batch on its way. All but `schedule` are tensors of fixed shapes; `x` and the cache's end change in place.

    x: (B, H, A) float32. of_masks: (B, H, h); of_times: (T, h). trailing: (B, n, hidden). rotation: of the postfix,
    (B, H + n, 1, D/2). biases: by rule, see grouped_bias; none where all see all.
    """

    schedule: Schedule
    cache: KvCache
    x: Tensor
    of_masks: Tensor
    of_times: Tensor
    trailing: Tensor
    rotation: Rotation
    biases: dict[Rule, Tensor]
    guide: Guide | None = None  # where the schedule has guidance

    @property
    def key(self) -> Hashable:
        return self.schedule, tuple(sorted(self.biases))

    @property
    def shape(self) -> str:
        """See graphs.State."""
        schedule = self.schedule
        return f"batches of up to {len(self.x)}, prefix of up to {schedule.prefix} tokens, {len(schedule.rules)} steps"

    def tensors(self) -> list[tuple[Tensor, int | None]]:
        """See graphs.State."""
        by_row = [self.x, self.of_masks, self.trailing, self.rotation.cos, self.rotation.sin]
        by_row += [*([] if self.guide is None else self.guide.tensors())]
        by_row += [self.biases[rule] for rule in sorted(self.biases)]
        return [(self.cache.keys, 1), (self.cache.values, 1), (self.of_times, None), *((part, 0) for part in by_row)]

    def replace(self, tensors: list[Tensor]) -> FlowState:
        """See graphs.State."""
        keys, values, of_times, x, of_masks, trailing, cos, sin, *others = tensors
        guide = None if self.guide is None else Guide(*others[:3])
        by_rule = dict(zip(sorted(self.biases), others if guide is None else others[3:], strict=True))
        rotation, cache = Rotation(cos, sin), KvCache(keys, values)
        return FlowState(self.schedule, cache, x, of_masks, of_times, trailing, rotation, by_rule, guide)


@dataclass(frozen=True)
class Request:
    """A batch before its prefill: what a graph takes in, in tensors of fixed shapes.

    prefix: padded on the right to the schedule's slots. state: its cache has no slots yet; the prefill makes it, where
    a graph's is and without a copy.
    """

    prefix: Prefix
    state: FlowState

    @property
    def key(self) -> Hashable:
        return self.state.key

    @property
    def shape(self) -> str:
        """See graphs.State."""
        return self.state.shape

    def tensors(self) -> list[tuple[Tensor, int | None]]:
        """See graphs.State."""
        rotation = self.prefix.rotation
        return [(self.prefix.x, 0), (rotation.cos, 0), (rotation.sin, 0), *self.state.tensors()]

    def replace(self, tensors: list[Tensor]) -> Request:
        """See graphs.State."""
        x, cos, sin, *others = tensors
        return Request(Prefix(x, Rotation(cos, sin), self.prefix.lengths), self.state.replace(others))
