"""An ONNX model on the command line: `onnx:policy.onnx`, or `policy.onnx` alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage, Recipe
from policyserve.policies.onnx.flags import OnnxFlags
from policyserve.policies.registry import Source


@dataclass(frozen=True)
class OnnxAdapter:
    """Serves an ONNX file: a policy of Isaac Lab, rsl_rl, mjlab, or any other network from arrays to actions."""

    target: str
    help = "an ONNX model: of Isaac Lab, rsl_rl, mjlab, or any from arrays to actions"
    rest = "FILE"
    flags = OnnxFlags

    def defaults(self, given: OnnxFlags | None) -> OnnxFlags:
        return OnnxFlags()

    def source(self, flags: OnnxFlags) -> Source:
        file = self.target.partition(":")[2]
        path = Path(file).expanduser()
        recipe = Recipe(f"{__name__}:load", {"file": file, "flags": flags})
        return Source(
            f"the ONNX model {path.name}",
            f"file {path.absolute()}",
            recipe,
            check=partial(_check, file, flags),
            files=partial(_files, file, path),
        )


def load(file: str, flags: OnnxFlags, on_stage: OnStage) -> Policy:
    """The policy of an ONNX file; raises ConfigError and MissingDependency."""
    from policyserve.policies.onnx.loading import load_onnx

    return load_onnx(file, flags, on_stage)


def _check(file: str, flags: OnnxFlags) -> None:
    from policyserve.policies.onnx.loading import check_onnx

    check_onnx(file, flags)


def _files(file: str, path: Path) -> list[Path]:
    from policyserve.policies.onnx.external import external_files

    return [path, *external_files(file, path)]
