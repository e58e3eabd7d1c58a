"""Has openpi load one of its checkpoints, and makes a policy of what it gives.

openpi takes one observation at a time and tells no spec: neither do we. Nothing of it is imported before it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.policy import FunctionPolicy, Policy, open_spec
from policyserve.core.recipe import OnStage

_PACKAGE = "openpi"
_TORCH_WEIGHTS, _JAX_WEIGHTS = "model.safetensors", "params"


def is_elsewhere(folder: str) -> bool:
    """Whether a checkpoint is no folder of this machine, but one that openpi fetches: `gs://…`."""
    return "://" in folder


def check_openpi(config: str, folder: str, device: str) -> None:
    """Raise MissingDependency where openpi is not installed, ConfigError for a folder that is no checkpoint of it."""
    if find_spec(_PACKAGE) is None:
        told = f"openpi:{config} is loaded by the package openpi, which is not installed here"
        advice = "install policyserve in openpi's environment: uv pip install policyserve in its repository"
        raise MissingDependency(_PACKAGE, _PACKAGE, f"{told}: {advice}")
    if is_elsewhere(folder):
        return
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"{folder}: expected a checkpoint's folder, got {'a file' if path.exists() else 'nothing there'}"
        )
    is_torch = (path / _TORCH_WEIGHTS).is_file()
    if not is_torch and not (path / _JAX_WEIGHTS).is_dir():
        told = f"{folder}: expected a checkpoint of openpi, with {_JAX_WEIGHTS}/ or {_TORCH_WEIGHTS}, got none of both"
        raise ConfigError(f"{told}{_steps_below(path)}")
    if device != "auto" and not is_torch:
        told = f"device: expected auto for a checkpoint of JAX, got {device!r}"
        raise ConfigError(f"{told}: JAX_PLATFORMS in the environment says where it computes")


def load_openpi(config: str, folder: str, prompt: str | None, device: str, on_stage: OnStage) -> Policy:
    """Load a checkpoint through the package. prompt: of an observation that has none. Raises ConfigError.

    device: of a checkpoint for PyTorch; auto: openpi chooses.
    """
    check_openpi(config, folder, device)
    on_stage("importing openpi")
    configs = import_module("openpi.training.config")
    policies = import_module("openpi.policies.policy_config")
    try:
        train_config = configs.get_config(config)
    except ValueError as error:
        raise ConfigError(f"openpi:{config}: {error}") from error
    on_stage("loading the checkpoint")
    where = folder if is_elsewhere(folder) else str(Path(folder).expanduser())
    options = {} if device == "auto" else {"pytorch_device": device}
    policy = policies.create_trained_policy(train_config, where, default_prompt=prompt, **options)
    spec = replace(open_spec(f"openpi {config}", _metadata(policy)), dialect="openpi")
    return FunctionPolicy(policy.infer, spec)


def _metadata(policy: Any) -> Mapping[str, Any]:
    """What the policy tells in its greeting, such as the pose to reset a robot to."""
    told = getattr(policy, "metadata", None)
    return told if isinstance(told, Mapping) else {}


def _steps_below(path: Path) -> str:
    """The newest step of a run that was named in place of one of its checkpoints."""
    steps = [one for one in path.iterdir() if one.name.isdigit() and one.is_dir()]
    return f"; did you mean {path / max(steps, key=lambda one: int(one.name)).name}?" if steps else ""
