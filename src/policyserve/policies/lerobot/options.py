"""The flags of a LeRobot policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from policyserve.policies.registry import check_given
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


@dataclass(frozen=True, kw_only=True)
class LeRobotFlags(DeviceFlag, DtypeFlag, ThreadsFlag, MaxBatchFlag, RenameFlag, HorizonFlag, SeedFlag):
    """Flags of a LeRobot policy."""

    mode: Mode | None = None
    """chunk: each request is answered by a chunk; step: one request for each step of the environment, one action back,
    as LeRobot's select_action; None: step for a policy that looks at several frames or ensembles, else chunk."""
    history: bool = False
    """With --mode chunk: observations bring their last frames, an axis of them in front of each array."""
    dataset_info: Annotated[str | None, arg(metavar="PATH")] = None
    """meta/info.json of the dataset that it was trained on: what the numbers of state and action are called."""

    def check(self) -> None:
        """Raise ConfigError for a flag that is out of its range, or that its mode has no use for."""
        super().check()
        check_given(dataset_info=self.dataset_info)
        self.require("horizon", self.horizon is None or self.mode != "step", "none with --mode step")
        self.require("history", not self.history or self.mode != "step", "no history of a client's with --mode step")
