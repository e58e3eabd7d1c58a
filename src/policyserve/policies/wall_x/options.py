"""What can be chosen about serving a Wall-X model, apart from which model it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from policyserve.core.errors import ConfigError
from policyserve.policies.wall_x.conventions import Conventions


@dataclass(frozen=True)
class Options:
    """Raises ConfigError for a number out of its bounds."""

    conventions: Conventions | None = None
    """None: upstream's, padded where the checkpoint's vectors are wider than the robot's."""
    num_steps: int = 10
    """Euler steps of the flow sampler."""
    seed: int = 0
    """Where each session's noise begins; an observation's own `noise` goes before it."""
    on_undecodable: Literal["error", "zeros"] = "error"
    """What answers tokens that are no actions: the error, or a chunk of zeros as the original meant to."""
    image_layout: Literal["any", "HWC", "CHW"] = "any"
    """What a color image's axes are; any: what its shape says, and where it says both, it is refused."""
    max_batch: int | None = None
    """Observations per model call; None: as many as fit in the memory that is there."""
    allow_special_tokens: bool = False
    """Take a prompt's `<|im_start|>` for the token, not for an attack: only where all clients are trusted."""
    allow_missing_state: bool = False
    """Take observations without a state."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps <= 1000:
            raise ConfigError(f"num_steps: expected 1 … 1000, got {self.num_steps}")
        if self.max_batch is not None and self.max_batch < 1:
            raise ConfigError(f"max_batch: expected 1 or more, got {self.max_batch}")
        if self.seed < 0:
            raise ConfigError(f"seed: expected 0 or more, got {self.seed}")
