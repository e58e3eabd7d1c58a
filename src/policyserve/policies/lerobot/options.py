"""The flags of a LeRobot policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from policyserve.policies.registry import check_given
from policyserve.policies.rtc import Schedule
from policyserve.policies.shared_flags import (
    DeviceFlag,
    DtypeFlag,
    HorizonFlag,
    MaxBatchFlag,
    RenameFlag,
    SeedFlag,
    ThreadsFlag,
)

Mode = Literal["chunk", "step"]
Resizing = Literal["pad", "stretch"]


@dataclass(frozen=True, kw_only=True)
class LeRobotFlags(DeviceFlag, DtypeFlag, ThreadsFlag, MaxBatchFlag, RenameFlag, HorizonFlag, SeedFlag):
    """Flags of a LeRobot policy."""

    mode: Mode | None = None
    """chunk: each request is answered by a chunk; step: one request for each step of the environment, one action back,
    as LeRobot's select_action; None: step for a policy that looks at several frames or ensembles, else chunk."""
    history: bool = False
    """With --mode chunk: observations bring their last frames, an axis of them in front of each array."""
    resize: Resizing | None = None
    """What becomes of pictures of another size than the policy's: pad: shrunk or enlarged, with black around; stretch:
    to its height and width, whatever that distorts; None: they are refused."""
    dataset_info: Annotated[str | None, arg(metavar="PATH")] = None
    """meta/info.json of the dataset that it was trained on: what the numbers of state and action are called."""

    rtc: Literal["lerobot", "off"] | None = None
    """Whether a chunk is made to agree with the actions that the robot executes until it is there, for clients that
    send them; None: by LeRobot's own guidance in flow policies (pi0, pi05, smolvla), which lerobot runs."""
    rtc_schedule: Schedule | None = None
    """How guidance fades behind the actions that will have run; None: as the checkpoint says, else linear."""
    rtc_max_guidance_weight: float | None = None
    """The most that one step of the flow corrects; None: as the checkpoint says, else 10."""

    def check(self) -> None:
        """Raise ConfigError for a flag that is out of its range, or that its mode has no use for."""
        super().check()
        check_given(dataset_info=self.dataset_info)
        self.require("horizon", self.horizon is None or self.mode != "step", "none with --mode step")
        weight = self.rtc_max_guidance_weight
        self.require("rtc_max_guidance_weight", weight is None or weight > 0, "more than 0")
        for name in ("rtc_schedule", "rtc_max_guidance_weight"):
            self.require(name, self.rtc != "off" or getattr(self, name) is None, "none with --rtc off")
        self.require("resize", self.resize is None or not self.history, "none with --history")
        self.require("history", not self.history or self.mode != "step", "no history of a client's with --mode step")
