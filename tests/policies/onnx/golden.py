"""What the original exporters' models answered, in the folder of golden cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from policyserve.core.arrays import Array
from tests.policies.frameworks import import_or_skip
from tests.shared import shared_path

ALONE = (
    "dynamic_mlp",
    "image_state_chunk",
    "isaaclab_mlp",
    "mjlab_tracking",
    "rsl_rl_cnn_dynamo",
    "rsl_rl_external_data",
)
EPISODES = ("rsl_rl_gru", "rsl_rl_lstm")
REFUSED = {
    "answers_nan": "it answers NaN or Inf whatever it is given",
    "custom_op": "it needs an operator that onnxruntime does not have; export it without (",
    "empty": "the file is empty: copy it again",
    "escape": "its weights lie in a second file, '../../../../../etc/hostname', outside its folder, which is refused",
    "external": "its weights lie in a second file, 'external.onnx.data', which is not beside it: copy both",
    "strings": "input s: expected numbers, got tensor(string)",
    "truncated": "expected an ONNX model, got a file that is cut off or none",
    "two_outputs": "outputs left_arm float32 (1, 2), right_arm float32 (1, 2): say which with --action",
}
ATOL = 1e-5


def model_of(case: str) -> str:
    """A case's model; skips without onnxruntime or the files."""
    import_or_skip("onnxruntime")
    return str(shared_path("any_policy", "onnx", case, "policy.onnx"))


def arrays_of(case: str) -> dict[str, Array]:
    with np.load(shared_path("any_policy", "onnx", case, "golden.npz")) as file:
        return {name: file[name] for name in file.files}


def refused(name: str) -> Path:
    import_or_skip("onnxruntime")
    return shared_path("any_policy", "onnx", "refuse", f"{name}.onnx")


def observations(arrays: Mapping[str, Array], names: Mapping[str, object]) -> list[dict[str, Array]]:
    """The case's inputs, one observation a row. names: of the spec."""
    found = {name: array for name, array in arrays.items() if name in names}
    count = len(next(iter(found.values())))
    return [{name: array[row].copy() for name, array in found.items()} for row in range(count)]


def actions_of(arrays: Mapping[str, Array]) -> Array:
    return next(array for name, array in arrays.items() if name in ("actions", "action_chunk"))
