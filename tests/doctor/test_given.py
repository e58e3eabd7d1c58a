"""Files that a user brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.dialects import by_name
from policyserve.doctor.given import read_example, read_frame


def test_an_example_is_the_arrays_and_texts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "seen.npz"
    np.savez(path, **{"observation/state": np.arange(3), "prompt": np.array("go")})
    observation = read_example(path)
    assert observation["observation/state"].tolist() == [0, 1, 2]
    assert observation["prompt"] == "go"


def test_an_example_may_be_told_by_shapes(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    path.write_text('{"image": {"shape": [4, 4, 3], "dtype": "uint8"}, "prompt": {"text": "go"}}')
    observation = read_example(path)
    assert (observation["image"].shape, observation["prompt"]) == ((4, 4, 3), "go")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"", "expected a file that ends in .json or .npz"),
        ("a.npz", b"no zip", "is no .npz file"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[]", "expected a map of key to shape"),
    ],
)
def test_a_wrong_example_is_told_with_its_name(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=told) as raised:
        read_example(tmp_path / name)
    assert name in str(raised.value)
    assert "--payload" not in str(raised.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, image=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_example(path)


@pytest.mark.parametrize("read", [read_example, read_frame])
def test_a_file_that_is_not_there_is_told(read: object) -> None:
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.npz"):
        read(Path("nowhere.npz"))  # type: ignore[operator]


@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl"])
def test_a_frame_tells_who_wrote_it(tmp_path: Path, dialect: str) -> None:
    path = tmp_path / "frame.bin"
    path.write_bytes(by_name(dialect).write_request({"obs": np.arange(4, dtype=np.float32)}))
    frame = read_frame(path)
    assert frame.dialect == dialect
    assert frame.observation is not None
    assert frame.observation["obs"].tolist() == [0, 1, 2, 3]


def test_bytes_that_are_no_request_are_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "frame.bin"
    path.write_bytes(b"\xc1 no MessagePack")
    frame = read_frame(path)
    assert frame.observation is None
    assert frame.error is not None


def test_an_empty_frame_is_refused(tmp_path: Path) -> None:
    (tmp_path / "frame.bin").touch()
    with pytest.raises(ConfigError, match="got the empty file"):
        read_frame(tmp_path / "frame.bin")
