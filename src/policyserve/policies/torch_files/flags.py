"""The flags of a torch program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policyserve.policies.pictures import Picture, read_pictures
from policyserve.policies.registry import check_given
from policyserve.policies.shared_flags import DeviceFlag, HorizonFlag, MaxBatchFlag, RenameFlag, ThreadsFlag
from policyserve.policies.torch_files.sizes import Input, read_sizes


@dataclass(frozen=True, kw_only=True)
class TorchFlags(HorizonFlag, RenameFlag, MaxBatchFlag, ThreadsFlag, DeviceFlag):
    """Flags of a torch program."""

    obs: str | None = None
    """Sizes of one observation, which TorchScript stores none of: 45, or by forward's names image=3x36x48,state=5."""
    action: str | None = None
    """The output that is the action: a name in a map, or a place, 0 for the first; None: actions, action or
    action_chunk, else the only one."""
    image: str | None = None
    """Inputs that clients send as camera pictures: KEY=uint8:HWC/255 by commas, divided by what stands last."""

    def check(self) -> None:
        """Raise ConfigError for a flag that was given nothing, or cannot be read."""
        super().check()
        check_given(action=self.action)
        read_sizes(self.obs)
        read_pictures(self.image)

    @property
    def sizes(self) -> tuple[Input, ...]:
        """What --obs says."""
        return read_sizes(self.obs)

    @property
    def pictures(self) -> Mapping[str, Picture]:
        """How pictures become inputs, by the inputs' names."""
        return read_pictures(self.image)
