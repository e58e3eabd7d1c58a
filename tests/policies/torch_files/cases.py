"""Golden cases of torch programs, and archives made from them with an entry changed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from tests.shared import shared_path

ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "jit_isaaclab_mlp": ("policy.pt", {"obs": "45"}),
    "export_mlp_static": ("policy.pt2", {}),
    "export_image_dynamic": ("policy.pt2", {}),
}
LSTM = "jit_rsl_rl_lstm"
REFUSED = {
    "export_with_pickle_code.pt2": "data/sample_inputs/model.pt: a pickle that names posix.mkdir, where tensors alone",
    "not_a_zip.pt": "expected a TorchScript or .pt2 file, which are zip archives, got one that begins with b'hello'",
    "pickle_with_code.pt": "a pickled module or object (it names posix.mkdir), which runs code when it is read: ",
    "rsl_rl_checkpoint.pt": "weights without a network, a checkpoint of rsl_rl (model_state_dict): where it was",
    "state_dict.pt": "weights without a network, a state dict; where its class is, export it: torch.jit.script(",
    "torchscript_with_pickle_code.pt": "a pickle in it names posix.mkdir, which is no module of this program's",
    "truncated.pt": "expected a zip archive, got another file, or one that was cut short",
    "whole_module.pt": "a pickled module or object (it names torch.nn.modules.container.Sequential), which runs code",
}
TOLERANCE = 1e-4
RAN = "policyserve_pickle_ran"  # the folder that the files with code make, if anything unpickles them


def file_of(case: str) -> Path:
    name = "policy.pt" if case == LSTM else ALONE[case][0]
    return shared_path("any_policy", "torch", case, name)


def refused(name: str) -> Path:
    return shared_path("any_policy", "torch", "refuse", name)


def golden(case: str) -> dict[str, Array]:
    with np.load(shared_path("any_policy", "torch", case, "golden.npz")) as file:
        return {name: file[name] for name in file.files}


def observations(case: str) -> list[dict[str, Array]]:
    """The case's inputs by the file's own names, one observation a row."""
    inputs = {name: array for name, array in golden(case).items() if name != "actions"}
    count = len(next(iter(inputs.values())))
    return [{name: array[row].copy() for name, array in inputs.items()} for row in range(count)]


def changed(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """An archive with other entries, whose checksums are right. change: an entry's name and content -> its content."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            after.writestr(name, change(name, before.read(name)))
    return target
