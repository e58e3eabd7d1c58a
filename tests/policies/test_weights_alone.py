"""Weights without a network: what wrote them is told, and how a policy is made of them; nothing of a pickle runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import msgpack
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.sniffing import recognise
from tests.policies.sb3.cases import MARK, Runs
from tests.shared import shared_path

FILES = {
    "policy.pkl": (pickle.dumps({"module": "brax.training.acme"}), "what Brax saved, a pickle of parameters"),
    "algorithm_state.pkl": (pickle.dumps({"class": "ray.rllib.algorithms.ppo"}), "a checkpoint of RLlib, a pickle"),
    "params.pickle": (pickle.dumps(["jaxlib", "jax._src.array"]), "arrays of JAX in a pickle"),
    "other.pkl": (pickle.dumps({"weights": [1.0]}), "a pickle, which can run any code when it is read"),
    "flax.msgpack": (msgpack.packb({"params": {"w": [1.0]}}) or b"", "parameters of Flax, as MessagePack"),
    "many.msgpack": (msgpack.packb({f"layer_{one}": [1.0] for one in range(40)}) or b"", "parameters of Flax"),
    "other.msgpack": (msgpack.packb([1, 2, 3]) or b"", "it begins as no file that is known here"),
    "w.safetensors": (b"\x10\0\0\0\0\0\0\0{}", "weights without a network; name the folder that has their config.json"),
}
FOLDERS = {
    "a step of vibe_rl": (("_CHECKPOINT_METADATA", "default/manifest.ocdbt"), "vibe_rl's is served by vibe_rl:RUN"),
    "a step of openpi": (
        ("_CHECKPOINT_METADATA", "params/_METADATA", "assets/a"),
        "openpi's is served by openpi:CONFIG",
    ),
    "params of openpi": (("params/manifest.ocdbt",), "a checkpoint of orbax, weights without a network: openpi's"),
    "PyTorch of openpi": (("model.safetensors", "assets/a"), "weights without a network: openpi's are served by"),
    "RLlib": (("rllib_checkpoint.json", "policies/a"), "a checkpoint of RLlib; where it was trained: algorithm.export"),
    "nothing known": (("notes.txt",), "a folder without a LeRobot policy's config.json"),
}


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        recognise(str(path))
    told = str(refused.value)
    assert "\n" not in told
    assert told.startswith(f"{path}: ")
    return told.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_told_by_its_content(name: str, tmp_path: Path) -> None:
    content, told = FILES[name]
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(told)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_told_by_what_is_in_it(name: str, tmp_path: Path) -> None:
    files, told = FOLDERS[name]
    for one in files:
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).write_bytes(b"{}")
    assert told in refusal(tmp_path)


def test_statistics_in_place_of_their_zip_are_told() -> None:
    path = shared_path("any_policy", "sb3", "ppo_vecnormalize", "vecnormalize.pkl")
    assert refusal(path).startswith("what VecNormalize saved, statistics without a policy: serve the zip")


def test_a_pickle_with_code_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brax.pkl").write_bytes(pickle.dumps(["brax", Runs()]))
    assert refusal(tmp_path / "brax.pkl").startswith("what Brax saved")
    assert not (tmp_path / MARK).exists()


def test_a_file_that_may_not_be_read_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()

    def refused(_self: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    assert (
        refusal(tmp_path / "run") == "expected a folder that can be read, got an error of the system: Permission denied"
    )
