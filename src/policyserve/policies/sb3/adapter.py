"""A zip of Stable-Baselines3 on the command line: `sb3:model.zip`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from policyserve.core.policy import Policy
from policyserve.core.recipe import Newest, OnStage, Recipe
from policyserve.policies.files import stamp_of
from policyserve.policies.registry import Source, check_given
from policyserve.policies.sb3.checkpoints import newest_checkpoint
from policyserve.policies.sb3.policy import find_zip, load_sb3
from policyserve.policies.sb3.vecnormalize import find_statistics
from policyserve.policies.shared_flags import MaxBatchFlag, RenameFlag, ThreadsFlag


@dataclass(frozen=True, kw_only=True)
class SB3Flags(RenameFlag, MaxBatchFlag, ThreadsFlag):
    """Flags of a zip of Stable-Baselines3."""

    vecnormalize: Annotated[str | None, arg(metavar="PATH|none")] = None
    """Statistics that VecNormalize saved; none: raw observations; None: vecnormalize.pkl beside the zip, if there."""

    def check(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        super().check()
        check_given(vecnormalize=self.vecnormalize)


@dataclass(frozen=True)
class SB3Adapter:
    """Serves what `model.save()` wrote; nothing of Stable-Baselines3, torch or Gymnasium is needed for it."""

    target: str
    help = "a zip of Stable-Baselines3 or sb3-contrib"
    rest = "FILE.zip"
    flags = SB3Flags

    def defaults(self, given: SB3Flags | None) -> SB3Flags:
        return SB3Flags()

    def source(self, flags: SB3Flags) -> Source:
        named = self.target.partition(":")[2]
        recipe = Recipe(f"{__name__}:load", {"flags": flags, "path": named})
        origin = f"zip {find_zip(named).absolute()}"
        return Source(
            f"Stable-Baselines3: {Path(named).name}",
            origin,
            recipe,
            check=lambda: _check(flags, named),
            files=lambda: _files(flags, named),
            newest=partial(_newest, flags, named),
        )


def load(flags: SB3Flags, path: str, on_stage: OnStage) -> Policy:
    """The policy of a zip; raises ConfigError."""
    on_stage("reading the zip")
    return load_sb3(
        path,
        vecnormalize=flags.vecnormalize,
        max_batch=flags.max_batch,
        threads=flags.threads,
        renames=flags.renames,
    )


def _newest(flags: SB3Flags, named: str) -> Newest | None:
    """The newest complete checkpoint of the run that a zip is from, for --follow."""
    found = newest_checkpoint(find_zip(named))
    if found is None:
        return None
    step, file = found
    recipe = Recipe(f"{__name__}:load", {"flags": flags, "path": str(file)})
    return Newest(step, recipe, stamp_of(*_files(flags, str(file))))


def _files(flags: SB3Flags, path: str) -> list[Path]:
    zipped = find_zip(path)
    statistics = find_statistics(zipped, flags.vecnormalize)
    return [zipped] if statistics is None else [zipped, statistics]


def _check(flags: SB3Flags, path: str) -> None:
    """Raise ConfigError for a zip that cannot be served."""
    load(flags, path, lambda _stage: None).close()
