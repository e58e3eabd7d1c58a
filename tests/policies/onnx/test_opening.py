"""What is said of a file, a device or a package that is not as it must be; any bytes are refused in one line."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies.onnx.flags import OnnxFlags
from policyserve.policies.onnx.loading import check_onnx
from policyserve.policies.onnx.opening import open_model
from tests.policies.frameworks import import_or_skip
from tests.policies.onnx.models import Node, Value, copying, linear, model, save, summing

FILES = (
    linear(np.ones((3, 2)), metadata={"joint_names": "a,b", "action_scale": "1,2"}),
    summing(4, batch=1, layers=2),
    summing(2, batch="batch"),
)


def refusal(path: str, device: str = "cpu") -> str:
    with pytest.raises(ConfigError) as refused:
        open_model(path, device)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_that_is_none_is_refused_before_onnxruntime_is_asked(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "the file is empty" in refusal(f"{tmp_path}/empty.onnx")
    assert "a Git-LFS pointer" in refusal(f"{tmp_path}/pointer.onnx")
    assert "there is no such file" in refusal(f"{tmp_path}/nowhere.onnx")
    assert "expected a file, got a folder" in refusal(str(tmp_path))
    assert "hf download unitree/go2 --local-dir go2" in refusal("unitree/go2")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"pip install 'policyserve\[onnx\]'"):
        open_model(save(tmp_path / "a.onnx", FILES[0]))


def test_what_onnxruntime_refuses_is_said_again_without_its_codes(tmp_path: Path) -> None:
    import_or_skip("onnxruntime")
    values = [Value("obs", [1, 2])], [Value("actions", [1, 2])]
    unknown = model([Node("Mystery", ["obs"], ["actions"], domain="vendor.ops")], *values)
    assert "it needs an operator that onnxruntime does not have" in refusal(save(tmp_path / "a.onnx", unknown))
    assert "a file that is cut off or none" in refusal(save(tmp_path / "b.onnx", FILES[0][:-40]))
    assert "a file that is cut off or none" in refusal(save(tmp_path / "c.onnx", b"hello, world"))
    broken = model([Node("Identity", ["nothing"], ["actions"])], *values)
    said = refusal(save(tmp_path / "d.onnx", broken))
    assert "got one that it refuses" in said
    assert "ONNXRuntimeError" not in said


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    import_or_skip("onnxruntime")
    texts = copying([Value("s", [1], "text")], [Value("o", [1], "text")])
    assert "input s: expected numbers, got tensor(string)" in refusal(save(tmp_path / "a.onnx", texts))


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    runtime = import_or_skip("onnxruntime")
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    path = save(tmp_path / "a.onnx", FILES[0])
    said = "--device cuda:1: this onnxruntime has no CUDA; pip install onnxruntime-gpu in its place"
    assert refusal(path, "cuda:1") == said
    assert open_model(path, "auto").device == "cpu"


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_of_a_file_is_served_or_refused_in_one_line(data: st.DataObject) -> None:
    import_or_skip("onnxruntime")
    content = bytearray(data.draw(st.sampled_from(FILES)))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    with tempfile.TemporaryDirectory() as folder, suppress(ConfigError):
        check_onnx(save(Path(folder) / "a.onnx", bytes(content)), OnnxFlags())


@given(content=st.binary(min_size=1, max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused(content: bytes) -> None:
    import_or_skip("onnxruntime")
    with tempfile.TemporaryDirectory() as folder, pytest.raises(ConfigError):
        check_onnx(save(Path(folder) / "a.onnx", content), OnnxFlags())
