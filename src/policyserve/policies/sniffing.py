"""Which kind of policy a file or folder is, by its name and its first bytes; no framework is imported for it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from policyserve.core.errors import ConfigError
from policyserve.policies.files import reading
from policyserve.policies.weights_alone import told_of_file, told_of_folder
from policyserve.policies.zips import names_in

SCHEMES = ("onnx", "lerobot", "sb3", "torch")  # those that a file or a folder can be of
_HEAD = 64  # bytes
_LFS = b"version https://git-lfs"
_ZIP = b"PK\x03\x04"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LARGEST_CONFIG = 1 << 20  # bytes
_ENDINGS = (".onnx", ".zip", ".pt", ".pt2", ".pth", ".ckpt", ".pkl", ".safetensors", ".msgpack")


class Recognised(NamedTuple):
    """What a path is: the scheme that serves it, and by what that was told, such as `an ONNX model, by its name`."""

    scheme: str
    told: str


def is_path(target: str) -> bool:
    """Whether a target without a scheme means a file or folder: it is there, or is spelt as a model's file is."""
    return bool(target) and (os.path.lexists(Path(target).expanduser()) or target.endswith(_ENDINGS))


def recognise(target: str) -> Recognised:
    """Tell what a bare path is; raises ConfigError for what cannot be served, or not without its scheme."""
    path = Path(target).expanduser()
    if path.is_dir():
        return _folder(target, path)
    head = read_head(target)
    if path.suffix.lower() == ".onnx":
        return Recognised("onnx", "an ONNX model, by its name")
    if head.startswith(_ZIP):
        return _zip(target, path)
    told = told_of_file(target, path)
    if told is not None:
        raise ConfigError(f"{target}: {told}")
    raise ConfigError(f"{target}: it begins as no file that is known here; {_told_schemes(target)}")


def read_head(target: str) -> bytes:
    """The first bytes of a model's file; raises ConfigError if there is no file, or another thing in its place."""
    path = Path(target).expanduser()
    if path.is_dir():
        raise ConfigError(f"{target}: expected a file, got a folder")
    if not path.exists():
        raise ConfigError(f"{target}: there is no such file{_from_hub(target)}")
    if not path.is_file():
        raise ConfigError(f"{target}: expected a file, got a pipe or a device")
    with reading(target, "a file that can be read"), path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise ConfigError(f"{target}: the file is empty: copy it again")
    if head.startswith(_LFS):
        told = f"a Git-LFS pointer, which stands for the file: run git lfs pull --include {path.name!r} beside it"
        raise ConfigError(f"{target}: {told}, or hf download for a repository of the Hugging Face Hub")
    return head


def _folder(target: str, path: Path) -> Recognised:
    for config in (path / "config.json", *_configs_of_a_run(path)):
        if config.is_file() and _has_type(config):
            return Recognised("lerobot", "a LeRobot policy, by its config.json")
    told = told_of_folder(target, path)
    if told is not None:
        raise ConfigError(f"{target}: {told}")
    told = "a folder without a LeRobot policy's config.json"
    raise ConfigError(f"{target}: {told}; name the policy's file in it, or {_told_schemes(target)}")


def _configs_of_a_run(path: Path) -> list[Path]:
    """Where LeRobot's trainer leaves policies below a run's folder, its checkpoints, or one of those."""
    below = ("pretrained_model", "*/pretrained_model", "checkpoints/*/pretrained_model")
    return [found for pattern in below for found in sorted(path.glob(f"{pattern}/config.json"))]


def _has_type(config: Path) -> bool:
    try:
        with config.open("rb") as file:
            found = json.loads(file.read(_LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("type"), str)


def _zip(target: str, path: Path) -> Recognised:
    names = names_in(path, target)
    inner = {name.partition("/")[2] for name in names}
    if {"data", "policy.pth"} <= set(names):
        return Recognised("sb3", "a Stable-Baselines3 zip, by the names in it")
    if path.suffix.lower() == ".pt2" or "models/model.json" in inner:
        return Recognised("torch", "a program of torch.export, by the names in it")
    if _has_program(inner):
        return Recognised("torch", "a TorchScript program, by the names in it")
    if "data.pkl" in inner:
        raise ConfigError(
            f"{target}: what torch.save() wrote, weights or a pickled module without their program: export ONNX where"
            " it was trained (Isaac Lab, rsl_rl: export_policy_as_onnx)"
        )
    raise ConfigError(f"{target}: a zip without what a policy's has; {_told_schemes(target)}")


def _has_program(inner: Collection[str]) -> bool:
    return "constants.pkl" in inner and "data.pkl" in inner


def _told_schemes(target: str) -> str:
    first, *others = (f"{scheme}:" for scheme in SCHEMES)
    return f"say what it is: {first}{target}, or with {', '.join(others)} in place of {first}"


def _from_hub(target: str) -> str:
    """How a repository of the Hub gets here, where a name looks as if one were meant."""
    if not _HUB_NAME.fullmatch(target) or target.endswith(_ENDINGS) or target.startswith("."):
        return ""
    folder = target.rpartition("/")[2]
    told = "a name on the Hugging Face Hub is downloaded first"
    return f"; {told}: hf download {target} --local-dir {folder}, and serve lerobot:{folder}"
