"""What can be chosen about serving a Wall-X model, apart from which model it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from policyserve.core.errors import ConfigError
from policyserve.policies.rtc import Rtc, Schedule
from policyserve.policies.shared_flags import RtcFlags
from policyserve.policies.wall_x.conventions import Attention, Conventions, Padding, conventions_named

_SIZE = re.compile(r"[1-9]\d{1,3}x[1-9]\d{1,3}", re.ASCII)


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
    cuda_graphs: bool = True
    """Whether work on a GPU is recorded and replayed; False: launched anew each time, several times slower."""
    warm_images: str = "256x256"
    """Height x width of the images that a GPU is warmed with, one for all cameras or one for each, by commas."""
    rtc: Rtc | None = None
    """How a chunk agrees with what the robot executes until it is there; None: clients do not say it."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps <= 1000:
            raise ConfigError(f"num_steps: expected 1 … 1000, got {self.num_steps}")
        if self.max_batch is not None and self.max_batch < 1:
            raise ConfigError(f"max_batch: expected 1 or more, got {self.max_batch}")
        if self.seed < 0:
            raise ConfigError(f"seed: expected 0 or more, got {self.seed}")
        if not all(map(_SIZE.fullmatch, self.warm_images.split(","))):
            raise ConfigError(f"warm_images: expected height x width, such as 480x640, got {self.warm_images!r}")

    def image_sizes(self, cameras: int) -> Sequence[tuple[int, int]]:
        """Height and width of each camera's images for the warm-up; raises ConfigError for another number of them."""
        named = [one.partition("x") for one in self.warm_images.split(",")]
        sizes = [(int(height), int(width)) for height, _, width in named]
        if len(sizes) not in (1, cameras):
            raise ConfigError(f"warm_images: expected one size, or one for each of {cameras} cameras, got {len(sizes)}")
        return sizes * cameras if len(sizes) == 1 else sizes


@dataclass(frozen=True)
class OptionFlags:
    """The same choices as a command line spells them: a bundle of conventions, and fields to replace in it."""

    conventions: Literal["upstream", "trained", "pad20", "lerobot"] | None = None
    """Whose ways: the original server's, those of training, those of late 2025, or LeRobot's; without it, the original
    server's, padded where the checkpoint's vectors are wider than the robot's."""
    attention: Attention | None = None
    """What action tokens see of each other."""
    trailing_tokens: bool | None = None
    """Whether the end of the assistant's turn follows the action tokens."""
    state: Literal["raw", "normalised"] | None = None
    """Whether the client has scaled the state, or the server does it."""
    statistics: Literal["min_max", "mean_std"] | None = None
    """What scales state and actions."""
    state_mask_end: Literal["action_dim", "state_dim"] | None = None
    """Where the mask of the state ends."""
    padding: Padding | None = None
    """How wide states and actions are for the model."""
    long_side_256: bool | None = None
    """Whether images are first resized to 256 pixels on their long side."""
    num_steps: int = 10
    """Euler steps of the flow sampler."""
    seed: int = 0
    """Where each session's noise begins."""
    on_undecodable: Literal["error", "zeros"] = "error"
    """What answers tokens that are no actions."""
    image_layout: Literal["any", "HWC", "CHW"] = "any"
    """What a color image's axes are; any: its shape decides, and what can be both is refused."""
    max_batch: int | None = None
    """Observations per model call; without it, as many as fit in memory."""
    allow_special_tokens: bool = False
    """Take special tokens in prompts: only where all clients are trusted."""
    allow_missing_state: bool = False
    """Take observations without a state."""
    cuda_graphs: bool = True
    """On a GPU, record the model's work once and replay it; without, all is launched anew, several times slower."""
    warm_images: str = "256x256"
    """Height x width of the images that a GPU is warmed with before the first request: of all cameras, or of each, by
    commas."""
    rtc: Literal["guided", "identity", "inpaint", "lerobot", "off"] = "off"
    """How a sampled chunk is made to agree with the actions that the robot executes until it is there, for clients that
    send them: by guidance; by guidance without a reverse pass, also as LeRobot has it; by those put in place."""
    rtc_schedule: Schedule | None = None
    """How guidance fades behind the actions that will have run; None: exp, and linear for lerobot."""
    rtc_max_guidance_weight: float | None = None
    """The most that one step of the flow corrects; None: as many as there are steps, and 10 for lerobot."""

    def options(self) -> Options:
        """The options that these flags mean; raises ConfigError."""
        changes = {field.name: getattr(self, field.name) for field in fields(Conventions)}
        is_changed = any(value is not None for value in changes.values())
        chosen = None
        if self.conventions is not None or is_changed:
            chosen = conventions_named(self.conventions or "upstream", **changes)
        return Options(
            conventions=chosen,
            num_steps=self.num_steps,
            seed=self.seed,
            on_undecodable=self.on_undecodable,
            image_layout=self.image_layout,
            max_batch=self.max_batch,
            allow_special_tokens=self.allow_special_tokens,
            allow_missing_state=self.allow_missing_state,
            cuda_graphs=self.cuda_graphs,
            warm_images=self.warm_images,
            rtc=RtcFlags(
                rtc=self.rtc, rtc_schedule=self.rtc_schedule, rtc_max_guidance_weight=self.rtc_max_guidance_weight
            ).how(),
        )
