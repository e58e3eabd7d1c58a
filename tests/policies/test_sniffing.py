"""What a bare path is told to be, and what is said of one that cannot be served."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError
from policyserve.policies.sniffing import is_path, read_head, recognise


def zip_of(path: Path, *names: str) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return str(path)


def refusal(target: str) -> str:
    with pytest.raises(ConfigError) as refused:
        recognise(target)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_is_told_by_its_name_and_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "policy.onnx").write_bytes(b"\x08\x0a")
    assert recognise(f"{tmp_path}/policy.onnx").scheme == "onnx"
    assert recognise(zip_of(tmp_path / "ppo.zip", "data", "policy.pth")).scheme == "sb3"
    assert recognise(zip_of(tmp_path / "a.pt", "policy/data.pkl", "policy/constants.pkl")).scheme == "torch"
    assert recognise(zip_of(tmp_path / "a.pt2", "a/models/model.json")).scheme == "torch"


@pytest.mark.parametrize(
    "below", ["", "pretrained_model", "000500/pretrained_model", "checkpoints/last/pretrained_model"]
)
def test_a_folder_of_lerobot_is_told_by_its_config_or_those_below(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    (tmp_path / below / "config.json").write_text(json.dumps({"type": "act"}))
    assert recognise(str(tmp_path)).scheme == "lerobot"


def test_each_that_cannot_be_served_has_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    (tmp_path / "brax.pkl").write_bytes(pickle.dumps({"params": 1}))
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "truncated.zip").write_bytes(b"PK\x03\x04")
    os.mkfifo(tmp_path / "pipe.onnx")
    os.symlink(tmp_path / "gone", tmp_path / "dangling.onnx")
    told = {
        "empty.onnx": "the file is empty",
        "pointer.onnx": "a Git-LFS pointer, which stands for the file: run git lfs pull --include 'pointer.onnx'",
        "brax.pkl": "a pickle, which can run any code",
        "model.safetensors": "weights without a network; name the folder",
        "notes.txt": "it begins as no file that is known here; say what it is: onnx:",
        "truncated.zip": "expected a zip archive, got another file, or one that was cut short",
        "pipe.onnx": "expected a file, got a pipe or a device",
        "dangling.onnx": "there is no such file",
        "nowhere.onnx": "there is no such file",
        ".": "a folder without a LeRobot policy's config.json; name the policy's file in it, or say what it is",
    }
    for name, said in told.items():
        assert refusal(f"{tmp_path}/{name}").startswith(f"{tmp_path}/{name}: {said}")
    state = refusal(zip_of(tmp_path / "model_1500.pt", "archive/data.pkl", "archive/data/0"))
    assert "what torch.save() wrote" in state
    assert "export_policy_as_onnx" in state
    assert "a zip without what a policy's has" in refusal(zip_of(tmp_path / "other.zip", "a.txt"))


def test_a_name_on_the_hub_is_told_how_it_is_downloaded() -> None:
    said = refusal("lerobot/act_aloha")
    assert "hf download lerobot/act_aloha --local-dir act_aloha, and serve lerobot:act_aloha" in said
    assert "hf download" not in refusal("./nowhere.onnx")


def test_a_path_is_what_is_there_or_spelt_as_a_model(tmp_path: Path) -> None:
    assert is_path(str(tmp_path))
    assert is_path("nowhere.onnx")
    assert not is_path("cartpole_pop")
    assert not is_path("")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file, got a folder"):
        read_head(str(tmp_path))


_SEEDS = st.sampled_from([b"", b"PK\x03\x04", b"\x80\x04", b"version https://git-lfs", b"\x08\x0a"])


@given(head=_SEEDS, tail=st.binary(max_size=200), name=st.sampled_from(["a.onnx", "a.zip", "a.pt", "a", "a.pt2"]))
def test_any_bytes_are_recognised_or_refused_and_nothing_else(head: bytes, tail: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(head + tail)
        with suppress(ConfigError):
            assert recognise(str(path)).scheme in ("onnx", "sb3", "torch")


@given(data=st.data())
def test_a_zip_with_mutated_bytes_is_recognised_or_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(zip_of(Path(folder) / "a.zip", "data", "policy.pth", "a/constants.pkl", "a/data.pkl"))
        content = bytearray(path.read_bytes())
        for place in data.draw(st.lists(st.integers(4, len(content) - 1), max_size=8)):
            content[place] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(4, len(content)))])
        with suppress(ConfigError):
            recognise(str(path))
