"""A checkpoint of openpi on the command line: `openpi:CONFIG --dir PATH`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage, Recipe
from policyserve.policies.openpi.loading import check_openpi, is_elsewhere, load_openpi
from policyserve.policies.registry import Source, check_given
from policyserve.policies.shared_flags import DeviceFlag


@dataclass(frozen=True, kw_only=True)
class OpenpiFlags(DeviceFlag):
    """Flags of a checkpoint of openpi."""

    dir: Annotated[str | None, arg(metavar="PATH")] = None
    """The checkpoint: a folder with params/ or model.safetensors, and assets/; also gs://…, which openpi fetches."""
    default_prompt: str | None = None
    """The prompt of an observation that has none; None: such an observation is refused by openpi."""

    def check(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        super().check()
        check_given(dir=self.dir, default_prompt=self.default_prompt)


@dataclass(frozen=True)
class OpenpiAdapter:
    """Serves what openpi trained, by the name of its training config, as its own server does."""

    target: str
    help = "a checkpoint of openpi, in an environment that has openpi"
    rest = "CONFIG"
    flags = OpenpiFlags

    def defaults(self, given: OpenpiFlags | None) -> OpenpiFlags:
        return OpenpiFlags()

    def source(self, flags: OpenpiFlags) -> Source:
        """Raises ConfigError if no checkpoint is named; whether openpi is there is its check's to tell."""
        config, folder = self.target.partition(":")[2], flags.dir
        if folder is None:
            raise ConfigError(
                "--dir is required: the folder of the checkpoint, such as checkpoints/pi05_droid/run/29999"
            )
        arguments = {"config": config, "folder": folder, "prompt": flags.default_prompt, "device": flags.device}
        return Source(
            f"openpi: {config}",
            f"checkpoint {folder if is_elsewhere(folder) else Path(folder).expanduser().absolute()}",
            Recipe(f"{__name__}:load", arguments),
            check=partial(check_openpi, config, folder, flags.device),
            files=lambda: [] if is_elsewhere(folder) else [Path(folder).expanduser()],
        )


def load(config: str, folder: str, prompt: str | None, device: str, on_stage: OnStage) -> Policy:
    """The policy of a checkpoint; raises ConfigError, MissingDependency, and what openpi raises."""
    return load_openpi(config, folder, prompt, device, on_stage)
