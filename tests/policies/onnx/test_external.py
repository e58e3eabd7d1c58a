"""Weights in a second file: it lies in the model's folder, or the model is refused before onnxruntime sees it."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve import ActionChunk, ConfigError, PolicyInput, load_policy
from policyserve.policies.onnx.external import check_external
from tests.policies.frameworks import import_or_skip
from tests.policies.onnx.models import elsewhere, linear, nested, save


def refusal(path: str) -> str:
    with pytest.raises(ConfigError) as refused:
        check_external(path, Path(path))
    return str(refused.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("location", ["weights.data", "below/weights.data", "./weights.data"])
def test_a_second_file_in_the_folder_is_read(location: str, tmp_path: Path) -> None:
    import_or_skip("onnxruntime")
    path = save(tmp_path / "a.onnx", elsewhere(location))
    assert refusal(path) == f"its weights lie in a second file, {location!r}, which is not beside it: copy both"
    (tmp_path / location).parent.mkdir(exist_ok=True)
    (tmp_path / location).write_bytes(np.array([1, 2], np.float32).tobytes())
    (chunk,) = load_policy(path).infer([PolicyInput({"obs": np.ones(2, np.float32)})])
    assert isinstance(chunk, ActionChunk)
    assert chunk.actions.tolist() == [2, 3]


@pytest.mark.parametrize("location", ["/etc/hostname", "../weights.data", "a/../../weights.data", "..", "a\0b"])
@pytest.mark.parametrize("is_in_subgraph", [False, True])
def test_a_file_outside_the_folder_is_refused_though_it_is_there(
    location: str, is_in_subgraph: bool, tmp_path: Path
) -> None:
    (tmp_path / "weights.data").write_bytes(bytes(8))
    (tmp_path / "models" / "a").mkdir(parents=True)
    path = save(tmp_path / "models" / "a.onnx", elsewhere(location, is_in_subgraph=is_in_subgraph))
    assert (
        refusal(path)
        == f"its weights lie in a second file, {location!r}, outside its folder, which is refused: export it again"
    )


def test_an_address_in_memory_is_no_file(tmp_path: Path) -> None:
    """onnxruntime's own mark for weights that lie in the process's memory."""
    assert "which is not beside it" in refusal(save(tmp_path / "a.onnx", elsewhere("*/_ORT_MEM_ADDR_/*")))


def test_a_model_with_its_weights_inside_names_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    check_external(save(path, linear(np.ones((3, 2)))), path)


def test_graphs_that_are_nested_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    check_external(save(path, nested(10)), path)
    assert "a file that is cut off or none" in refusal(save(path, nested(1000)))


@given(content=st.binary(min_size=1, max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, suppress(ConfigError):
        path = Path(folder) / "a.onnx"
        check_external(save(path, content), path)
