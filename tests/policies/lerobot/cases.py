"""Policies that LeRobot itself saved, with what it answers: shared/any_policy/lerobot."""

from __future__ import annotations

import json
import lzma
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import PolicyInput
from policyserve.policies.safetensors_files import read_array, read_header
from tests.shared import shared_path

ACT = ("act_state", "act_ensemble", "act_one_camera", "act_two_cameras", "act_legacy_033")
DIFFUSION = ("diffusion_state_ddim", "diffusion_image_ddpm", "diffusion_two_cameras")
CASES = (*ACT, *DIFFUSION)
TOLERANCE = 1e-4  # absolute, of actions of about 5

_unpacked: list[tempfile.TemporaryDirectory[str]] = []


@cache
def folder(case: str) -> Path:
    """The policy's folder, its weights unpacked; it is read by many tests and changed by none."""
    source = shared_path("any_policy", "lerobot", case) / "pretrained_model"
    if not (source / "model.safetensors.xz").exists():
        return source
    _unpacked.append(tempfile.TemporaryDirectory())
    place = Path(_unpacked[-1].name)
    for file in source.iterdir():
        if file.suffix == ".xz":
            with lzma.open(file) as packed, (place / file.stem).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        else:
            shutil.copyfile(file, place / file.name)
    return place


def copied(case: str, place: Path) -> Path:
    """A copy that a test may change."""
    target = place / case
    target.mkdir(parents=True)
    for file in folder(case).iterdir():
        shutil.copyfile(file, target / file.name)
    return target


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


@cache
def golden(case: str) -> dict[str, Array]:
    with np.load(shared_path("any_policy", "lerobot", case, "golden.npz")) as arrays:
        return {name: arrays[name] for name in arrays.files}


def frames(case: str, kind: str, *place: int) -> dict[str, Array]:
    """One observation of `chunk` (sample, frame) or `episode` (session, step), by name."""
    head = f"{kind}/obs/"
    return {
        name.removeprefix(head): values[place].copy() for name, values in golden(case).items() if name.startswith(head)
    }


def one(observation: dict[str, Array], state: Any = None) -> PolicyInput:
    return PolicyInput(observation, None, state)


def write_tensors(path: Path, tensors: dict[str, Array]) -> None:
    """A safetensors file of float32 tensors, without the package."""
    header: dict[str, Any] = {}
    data = b""
    for name, values in tensors.items():
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_tensors(path: Path) -> dict[str, Array]:
    """The float32 tensors of a file."""
    return {name: read_array(stored) for name, stored in read_header(path).items()}
