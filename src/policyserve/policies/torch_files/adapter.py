"""A torch program on the command line: `torch:policy.pt`, or `policy.pt2` alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage, Recipe
from policyserve.policies.registry import Source
from policyserve.policies.torch_files.flags import TorchFlags


@dataclass(frozen=True)
class TorchAdapter:
    """Serves TorchScript and what torch.export.save() wrote. Both are programs: they run when they are loaded."""

    target: str
    help = "a TorchScript or .pt2 program of your own: of Isaac Lab, rsl_rl, or any from tensors to actions"
    rest = "FILE"
    flags = TorchFlags

    def defaults(self, given: TorchFlags | None) -> TorchFlags:
        return TorchFlags()

    def source(self, flags: TorchFlags) -> Source:
        file = self.target.partition(":")[2]
        path = Path(file).expanduser()
        recipe = Recipe(f"{__name__}:load", {"file": file, "flags": flags})
        return Source(
            f"the torch program {path.name}", f"file {path.absolute()}", recipe, check=partial(_check, file, flags)
        )


def load(file: str, flags: TorchFlags, on_stage: OnStage) -> Policy:
    """The policy of a program; raises ConfigError and MissingDependency."""
    from policyserve.policies.torch_files.loading import load_torch

    return load_torch(file, flags, on_stage)


def _check(file: str, flags: TorchFlags) -> None:
    from policyserve.policies.torch_files.loading import check_torch

    check_torch(file, flags)
