"""The flags that kinds of policies share, a dataclass for each: a kind inherits those that mean something for it.

Each has one name, one help text and one range, whichever kind of policy it stands behind. A kind's own flags go into a
dataclass that inherits them, all frozen and keyword-only; what it checks besides goes into its check().
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from policyserve.core.errors import ConfigError
from policyserve.core.settings import Settings
from policyserve.policies.naming import read_renames
from policyserve.policies.rtc import LEROBOT, Rtc, Schedule

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True, kw_only=True)
class DeviceFlag(Settings):
    """Where it computes."""

    device: str = "auto"
    """Where it computes: auto, cpu, cuda or cuda:N; auto: on a GPU where there is one that it can use."""

    def check(self) -> None:
        """Raise ConfigError for what is no device's name."""
        super().check()
        self.require("device", _DEVICE.fullmatch(self.device) is not None, "auto, cpu, cuda or cuda:N")


@dataclass(frozen=True, kw_only=True)
class DtypeFlag(Settings):
    """How exactly it computes."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """What it computes in."""


@dataclass(frozen=True, kw_only=True)
class ThreadsFlag(Settings):
    """How many cores one call uses."""

    threads: int | None = None
    """Threads of one call on the CPU; None: 1 for a small model, else as many as its framework takes."""

    def check(self) -> None:
        """Raise ConfigError for fewer than one."""
        super().check()
        self.require("threads", self.threads is None or self.threads >= 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class MaxBatchFlag(Settings):
    """How many observations one call answers."""

    max_batch: int | None = None
    """Observations per call; None: as many as suit this kind of policy."""

    def check(self) -> None:
        """Raise ConfigError for fewer than one."""
        super().check()
        self.require("max_batch", self.max_batch is None or self.max_batch >= 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class RenameFlag(Settings):
    """What clients call the policy's inputs."""

    rename: str | None = None
    """What clients call the policy's inputs: client=policy, by commas, as in observation/image=camera."""

    def check(self) -> None:
        """Raise ConfigError for what is no such list."""
        super().check()
        read_renames(self.rename)

    @property
    def renames(self) -> Mapping[str, str]:
        """The policy's name of each that a client calls otherwise, by the client's."""
        return read_renames(self.rename)


@dataclass(frozen=True, kw_only=True)
class HorizonFlag(Settings):
    """How much of a chunk of actions is sent."""

    horizon: str | None = None
    """Send the first N actions of each chunk, or `all`; None: as many as the policy says are to be executed."""

    def check(self) -> None:
        """Raise ConfigError for what is no number of actions."""
        super().check()
        is_number = self.horizon is not None and self.horizon.isascii() and self.horizon.isdigit()
        is_fine = self.horizon in (None, "all") or (is_number and int(self.horizon or 0) >= 1)
        self.require("horizon", is_fine, "1 or more actions, or all")

    def steps(self, usual: int, most: int) -> int:
        """How many actions of a chunk are sent. usual: where no flag says it; most: as many as a chunk has.

        Raises ConfigError for more than there are.
        """
        wanted = usual if self.horizon is None else most if self.horizon == "all" else int(self.horizon)
        if wanted > most:
            raise ConfigError(f"--horizon: expected at most {most}, which are all actions of a chunk, got {wanted}")
        return wanted


@dataclass(frozen=True, kw_only=True)
class SeedFlag(Settings):
    """What its random numbers begin with."""

    seed: int | None = None
    """What its random numbers begin with, so that they are the same each time; None: others each time."""

    def check(self) -> None:
        """Raise ConfigError for a negative one."""
        super().check()
        self.require("seed", self.seed is None or self.seed >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class RtcFlags(Settings):
    """How chunks are made to agree with what the robot executes meanwhile."""

    rtc: Literal["guided", "identity", "inpaint", "lerobot", "trained", "off"] = "guided"
    """How a chunk is made to agree with the actions that the robot executes until it is there, for clients that send
    them: by guidance; by guidance without a reverse pass, also as LeRobot has it; by those actions put in place; by a
    network that was trained for it."""
    rtc_schedule: Schedule | None = None
    """How guidance fades behind the actions that will have run; None: exp, and linear for lerobot."""
    rtc_max_guidance_weight: float | None = None
    """The most that one step of the flow corrects; None: as many as there are steps, and 10 for lerobot."""

    def check(self) -> None:
        """Raise ConfigError for a weight that is none, and for what the method has no use for."""
        super().check()
        is_weight = self.rtc_max_guidance_weight is None or self.rtc_max_guidance_weight > 0
        self.require("rtc_max_guidance_weight", is_weight, "more than 0")
        if self.rtc in ("inpaint", "trained", "off"):
            told = f"none with --rtc {self.rtc}"
            self.require("rtc_schedule", self.rtc_schedule is None, told)
            self.require("rtc_max_guidance_weight", self.rtc_max_guidance_weight is None, told)

    def how(self) -> Rtc | None:
        """What the flags stand for; None: clients send no such actions."""
        if self.rtc == "off":
            return None
        usual = LEROBOT if self.rtc == "lerobot" else Rtc(self.rtc)
        weight = self.rtc_max_guidance_weight
        return replace(
            usual,
            schedule=self.rtc_schedule or usual.schedule,
            max_guidance_weight=usual.max_guidance_weight if weight is None else weight,
        )
