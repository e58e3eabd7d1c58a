"""The flags of an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from policyserve.policies.pictures import Picture, read_pictures
from policyserve.policies.registry import check_given
from policyserve.policies.shared_flags import DeviceFlag, HorizonFlag, MaxBatchFlag, RenameFlag, ThreadsFlag


@dataclass(frozen=True, kw_only=True)
class OnnxFlags(HorizonFlag, RenameFlag, MaxBatchFlag, ThreadsFlag, DeviceFlag):
    """Flags of an ONNX model."""

    action: str | None = None
    """The output that is the action; None: actions, action or action_chunk, else the only one."""
    state: str | None = None
    """What a session remembers: in=out by commas, or none; None: h_in=h_out, past_x=present_x and their like."""
    image: str | None = None
    """Inputs that clients send as camera pictures: KEY=uint8:HWC/255 by commas, divided by what stands last."""
    extras: Literal["none", "all"] = "none"
    """all: send the model's other outputs, too."""

    def check(self) -> None:
        """Raise ConfigError for a flag that was given nothing, or cannot be read."""
        super().check()
        check_given(action=self.action, state=self.state)
        read_pictures(self.image)

    @property
    def pictures(self) -> Mapping[str, Picture]:
        """How pictures become inputs, by the inputs' names."""
        return read_pictures(self.image)
