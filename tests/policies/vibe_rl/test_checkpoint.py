"""Which checkpoint is found, and what is said of one that does not fit."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies.vibe_rl.checkpoint import Checkpoint, find_checkpoint, newest_checkpoint, read_network
from policyserve.policies.vibe_rl.records import open_records
from tests.policies.frameworks import import_or_skip
from tests.policies.vibe_rl.states import dqn_state, ppo_state, sac_state, write_eqx
from tests.shared import shared_path

SIZES = (4, 8, 6, 2)
NETWORK = 6  # records of SIZES


def steps(folder: Path, *numbers: int) -> None:
    for number in numbers:
        write_eqx(folder / f"step_{number}" / "state.eqx", [])


def orbax_steps(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / str(number) / "default").mkdir(parents=True)
        (folder / str(number) / "_CHECKPOINT_METADATA").touch()


def test_the_latest_step_is_the_largest_number_and_not_the_last_name(tmp_path: Path) -> None:
    steps(tmp_path, 9000, 102_400, 25_600)
    (tmp_path / "step_999999").mkdir()  # holds no state.eqx
    (tmp_path / "step_last").mkdir()
    assert find_checkpoint(tmp_path) == Checkpoint(tmp_path / "step_102400" / "state.eqx", 102_400)


def test_a_state_in_the_directory_itself_comes_before_all_steps(tmp_path: Path) -> None:
    steps(tmp_path, 10)
    write_eqx(tmp_path / "state.eqx", [])
    assert find_checkpoint(tmp_path) == Checkpoint(tmp_path / "state.eqx", None)
    assert find_checkpoint(str(tmp_path), 10).step == 10


def test_steps_come_before_orbax_and_the_largest_orbax_step_is_the_latest(tmp_path: Path) -> None:
    orbax_steps(tmp_path, 900, 10_000)
    assert find_checkpoint(tmp_path) == Checkpoint(tmp_path / "10000", 10_000)
    steps(tmp_path, 10)
    assert find_checkpoint(tmp_path) == Checkpoint(tmp_path / "step_10" / "state.eqx", 10)
    assert find_checkpoint(tmp_path, 900) == Checkpoint(tmp_path / "900", 900)


def test_one_checkpoints_own_directory_is_that_checkpoint(tmp_path: Path) -> None:
    steps(tmp_path, 10, 20)
    orbax_steps(tmp_path, 30)
    assert find_checkpoint(tmp_path / "step_10").step == 10
    assert find_checkpoint(tmp_path / "30") == Checkpoint(tmp_path / "30", 30)


def test_best_may_be_a_link_or_a_file_that_names_its_sibling(tmp_path: Path) -> None:
    steps(tmp_path, 10, 20)
    (tmp_path / "best").write_text("step_10\n")
    (tmp_path / "linked").symlink_to("step_20")
    assert find_checkpoint(tmp_path / "best") == Checkpoint(tmp_path / "step_10" / "state.eqx", 10)
    assert find_checkpoint(tmp_path / "linked") == Checkpoint(tmp_path / "linked" / "state.eqx", 20)


@pytest.mark.parametrize("content", ["", "..", "step_10/../step_10", "step_11", "x" * 1000, "step_10\0"])
def test_a_best_that_names_no_sibling_is_refused(content: str, tmp_path: Path) -> None:
    steps(tmp_path / "checkpoints", 10)
    best = tmp_path / "checkpoints" / "best"
    best.write_text(content)
    with pytest.raises(ConfigError, match="best: expected a checkpoint directory, got a file"):
        find_checkpoint(best)


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing: no such checkpoint directory"):
        find_checkpoint(tmp_path / "missing")
    with pytest.raises(ConfigError, match="got an empty directory"):
        find_checkpoint(tmp_path)
    steps(tmp_path / "checkpoints", 9000, 10_000)
    with pytest.raises(ConfigError, match=r"expected state\.eqx, .*, got checkpoints; did you mean .*checkpoints\?"):
        find_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match=r"expected step_5/state\.eqx or orbax 5/, got steps 9000, 10000"):
        find_checkpoint(tmp_path / "checkpoints", 5)
    with pytest.raises(ConfigError, match="got no step"):
        find_checkpoint(tmp_path, 5)


def test_a_directory_where_the_file_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.eqx").mkdir()
    with pytest.raises(ConfigError, match=r"state\.eqx: expected a file of \.npy records, got a directory"):
        find_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "step_3" / "state.eqx").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"step_3.state\.eqx: expected a file"):
        find_checkpoint(tmp_path / "checkpoints")


def read(path: Path, leaves: Sequence[Any], algorithm: str, sizes: Sequence[int] = SIZES) -> Any:
    return read_network(Checkpoint(write_eqx(path / "state.eqx", leaves), None), sizes, algorithm)


STATES = {"PPO": ppo_state, "DQN": dqn_state, "SAC": sac_state}


@pytest.mark.parametrize("algorithm", STATES)
@pytest.mark.parametrize("sizes", [SIZES, (3, 16, 2), (5, 4), (4, 4, 4, 4), (3, 8, 8, 1)])
def test_the_network_is_the_first_records_whatever_is_behind_them(
    algorithm: str, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    leaves = STATES[algorithm](sizes)
    for kept in {*range(2 * (len(sizes) - 1), len(leaves)), len(leaves)}:
        layers = read(tmp_path, leaves[:kept], algorithm, sizes)
        assert len(layers) == len(sizes) - 1
        for layer, weight, bias in zip(layers, leaves[::2], leaves[1::2], strict=False):
            np.testing.assert_array_equal(layer.weight, weight)
            np.testing.assert_array_equal(layer.bias, bias)


def test_a_shared_backbone_is_read_with_either_setting(tmp_path: Path) -> None:
    leaves = ppo_state(SIZES, shared=True)
    np.testing.assert_array_equal(read(tmp_path, leaves, "PPO")[2].bias, leaves[5])


@pytest.mark.parametrize("behind", [b"", b"x", b"\x93NUMPY\x01\x00", b"\0" * 1000])
def test_damage_behind_the_network_does_not_matter(behind: bytes, tmp_path: Path) -> None:
    path = write_eqx(tmp_path / "state.eqx", ppo_state(SIZES)[:NETWORK])
    path.write_bytes(path.read_bytes() + behind)
    assert len(read_network(Checkpoint(path, None), SIZES, "PPO")) == 3


@pytest.mark.parametrize(
    ("written", "asked", "found"),
    [("DQN", "PPO", "DQN"), ("SAC", "DQN", "SAC"), ("PPO", "DQN", "PPO"), ("SAC", "PPO", "SAC"), ("PPO", "SAC", "PPO")],
)
def test_another_algorithm_of_the_same_sizes_is_refused(written: str, asked: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"expected a {asked} checkpoint, found one of {found}"):
        read(tmp_path, STATES[written](SIZES), asked)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        (
            ppo_state((4, 64, 64, 2)),
            "record 0 (weight of layer 0): expected float32 (8, 4), found float32 (64, 4); the file looks like PPO "
            "with hidden_sizes (64, 64), 4 inputs and 2 outputs: serve it with the config it was trained with",
        ),
        (
            dqn_state((4, 8, 2)),
            "record 2 (weight of layer 1): expected float32 (6, 8), found float32 (2, 8); the file looks like DQN with "
            "hidden_sizes (8,), 4 inputs and 2 outputs",
        ),
        (
            sac_state((3, 8, 6, 1)),
            "record 0 (weight of layer 0): expected float32 (8, 4), found float32 (8, 3); the file looks like SAC with "
            "hidden_sizes (8, 6), 3 inputs and 1 outputs",
        ),
        (
            ppo_state((4, 8, 6, 3), shared=True),
            "the file looks like PPO with hidden_sizes (8, 6), 4 inputs and 3 outputs",
        ),
        (ppo_state((4, 8, 6, 3))[:6], "the file looks like a network with hidden_sizes (8, 6), 4 inputs and 3 outputs"),
        (ppo_state(SIZES)[:5], "record 5 (bias of layer 2): expected float32 (2,), the file ends before it"),
        ([], "record 0 (weight of layer 0): expected float32 (8, 4), the file is empty"),
        (
            [leaf.astype(np.float64) for leaf in ppo_state((4, 9, 2))],
            "expected float32 (8, 4), found float64 (9, 4); the file looks like PPO with hidden_sizes (9,)",
        ),
    ],
)
def test_sizes_that_differ_are_refused_with_what_the_file_looks_like(
    leaves: Sequence[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read(tmp_path, leaves, "PPO")
    assert str(caught.value).startswith(str(tmp_path / "state.eqx"))
    assert "\n" not in str(caught.value)


def as_bfloat16(leaf: Any) -> Any:
    """A bfloat16 leaf as NumPy reads and writes it: the upper half of each float32, of no named dtype."""
    return (leaf.view(np.uint32) >> 16).astype(np.uint16).view("V2")


WIDTHS: Mapping[str, tuple[Callable[[Any], Any], float]] = {
    "float16": (lambda leaf: leaf.astype(np.float16), 1e-3),
    "bfloat16": (as_bfloat16, 1e-2),
    "float64": (lambda leaf: leaf.astype(np.float64), 0),
    ">f4": (lambda leaf: leaf.astype(">f4"), 0),
    ">f8": (lambda leaf: leaf.astype(">f8"), 0),
}


@pytest.mark.parametrize("width", WIDTHS)
def test_weights_of_another_width_are_cast_and_the_log_says_so_once(
    width: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cast, tolerance = WIDTHS[width]
    leaves = ppo_state(SIZES)
    stored = [cast(leaf) if leaf.dtype == np.float32 else leaf for leaf in leaves]
    with caplog.at_level(logging.INFO):
        layers = read(tmp_path, stored, "PPO")
    for layer, weight, bias in zip(layers, leaves[::2], leaves[1::2], strict=False):
        assert layer.weight.dtype == layer.bias.dtype == np.float32
        np.testing.assert_allclose(layer.weight, weight, rtol=tolerance)
        np.testing.assert_allclose(layer.bias, bias, rtol=tolerance)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'state.eqx'}: weights of another precision: {width} read as float32"
    ]


def test_weights_that_are_float32_are_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read(tmp_path, ppo_state(SIZES), "PPO")
    assert not caplog.records


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_weights_that_are_no_floats_are_refused_without_advice_on_the_config(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, [leaf.astype(dtype) for leaf in ppo_state(SIZES)], "PPO")
    assert f"record 0 (weight of layer 0): expected float32 (8, 4), found {dtype} (8, 4); weights may be floats" in str(
        caught.value
    )
    assert "config" not in str(caught.value)


def test_a_weight_too_large_for_float32_is_refused(tmp_path: Path) -> None:
    leaves = [leaf.astype(np.float64) for leaf in ppo_state(SIZES)]
    leaves[2][1, 3] = 1e39
    with pytest.raises(ConfigError, match=r"record 2: expected numbers that float32 can hold, got 1e\+39"):
        read(tmp_path, leaves, "PPO")


def test_a_file_cut_within_the_network_is_refused(tmp_path: Path) -> None:
    path = write_eqx(tmp_path / "state.eqx", ppo_state(SIZES)[:NETWORK])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="record 5: expected 1200 bytes up to its end, got 1199"):
        read_network(Checkpoint(path, None), SIZES, "PPO")


ORBAX = {
    "cartpole_dqn": ((4, 128, 128, 2), "DQN", 100_000),
    "gridworld_dqn": ((2, 64, 64, 4), "DQN", 25_000),
    "pendulum_sac_pm2": ((3, 64, 64, 1), "SAC", 22_000),
}


@pytest.mark.parametrize("name", ORBAX)
def test_an_orbax_checkpoint_has_the_same_leaves_as_its_twin(name: str) -> None:
    import_or_skip("tensorstore")
    sizes, algorithm, step = ORBAX[name]
    twin = find_checkpoint(shared_path("vibe_rl", "golden", name, "checkpoints"), step)
    orbax = find_checkpoint(shared_path("vibe_rl", "golden", name, "orbax"))
    assert orbax.step == step
    with open_records(orbax.path) as ours, open_records(twin.path) as theirs:
        index = 0
        while (found := theirs.header(index)) is not None:
            assert ours.header(index) == found
            np.testing.assert_array_equal(ours.read(index), theirs.read(index))
            index += 1
        assert ours.header(index) is None
    for ours, theirs in zip(*(read_network(one, sizes, algorithm) for one in (orbax, twin)), strict=True):
        np.testing.assert_array_equal(ours.weight, theirs.weight)
        np.testing.assert_array_equal(ours.bias, theirs.bias)


def write_orbax(folder: Path, arrays: Mapping[str, Any], *, is_ocdbt: bool = True) -> Path:
    """Write named arrays as an orbax step directory."""
    tensorstore = import_or_skip("tensorstore")
    files = {"driver": "file", "path": f"{folder}/default/"}
    for name, array in arrays.items():
        place = {"driver": "ocdbt", "base": files, "path": f"{name}/"}
        plain = {"driver": "file", "path": f"{folder}/default/{name}/"}
        spec = {"driver": "zarr", "kvstore": place if is_ocdbt else plain}
        dtype = array.dtype.name  # tensorstore names bfloat16
        tensorstore.open(spec, create=True, dtype=dtype, shape=array.shape).result().write(array).result()
    (folder / "_CHECKPOINT_METADATA").touch()
    return folder


def as_orbax(leaves: Sequence[Any], prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}leaf_{index}": leaf for index, leaf in enumerate(leaves)}


@pytest.mark.parametrize("is_ocdbt", [True, False])
def test_orbax_checkpoints_are_read_with_and_without_ocdbt(is_ocdbt: bool, tmp_path: Path) -> None:
    leaves = dqn_state(SIZES)
    write_orbax(tmp_path / "7", as_orbax(leaves), is_ocdbt=is_ocdbt)
    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint == Checkpoint(tmp_path / "7", 7)
    np.testing.assert_array_equal(read_network(checkpoint, SIZES, "DQN")[1].weight, leaves[2])
    with pytest.raises(ConfigError, match=r"7: record 0 .*the file looks like DQN with hidden_sizes \(8, 6\)"):
        read_network(checkpoint, (4, 9, 2), "DQN")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_orbax_weights_of_another_width_are_cast(dtype: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if dtype == "bfloat16":
        import_or_skip("ml_dtypes")  # names the dtype for NumPy
    leaves = dqn_state(SIZES)
    folder = write_orbax(tmp_path / "7", as_orbax([leaf.astype(dtype) for leaf in leaves[:NETWORK]]))
    with caplog.at_level(logging.INFO):
        layers = read_network(Checkpoint(folder, 7), SIZES, "DQN")
    for layer, weight in zip(layers, leaves[::2], strict=False):
        assert layer.weight.dtype == np.float32
        np.testing.assert_allclose(layer.weight, weight, rtol=1e-2)
    assert caplog.text.count(f"weights of another precision: {dtype} read as float32") == 1


@pytest.mark.parametrize("is_ocdbt", [True, False])
@pytest.mark.parametrize("prefix", ["state.", "module.state."])
def test_the_only_prefix_of_orbax_names_is_taken_off_with_a_line_in_the_log(
    prefix: str, is_ocdbt: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leaves = dqn_state(SIZES)
    arrays = {**as_orbax(leaves, prefix), "epoch": np.zeros(3, np.float32)}
    folder = write_orbax(tmp_path / "7", arrays, is_ocdbt=is_ocdbt)
    layers = read_network(Checkpoint(folder, 7), SIZES, "DQN")
    np.testing.assert_array_equal(layers[2].bias, leaves[5])
    assert caplog.text.count(f"its leaves are named {prefix}leaf_0, …: read as leaf_0, …") == 1


def test_orbax_names_without_a_prefix_come_before_those_with_one(tmp_path: Path) -> None:
    leaves, others = dqn_state(SIZES), dqn_state(SIZES, seed=1)
    folder = write_orbax(tmp_path / "7", {**as_orbax(others, "ema."), **as_orbax(leaves)})
    np.testing.assert_array_equal(read_network(Checkpoint(folder, 7), SIZES, "DQN")[0].weight, leaves[0])


def test_orbax_names_that_are_not_clear_are_shown(tmp_path: Path) -> None:
    leaves = dqn_state(SIZES)[:2]
    two = write_orbax(tmp_path / "7", {**as_orbax(leaves, "ema."), **as_orbax(leaves, "model.")})
    with pytest.raises(ConfigError, match=r"expected one train state, leaf_0, leaf_1, …, got ema\.leaf_0, ema\.leaf_1"):
        read_network(Checkpoint(two, 7), SIZES, "DQN")
    named = write_orbax(tmp_path / "8", {f"params.Dense_{index}.kernel": leaves[0] for index in range(8)})
    with pytest.raises(ConfigError) as caught:
        read_network(Checkpoint(named, 8), SIZES, "DQN")
    assert "8/default: expected a train state, leaf_0, leaf_1, …, got params.Dense_0.kernel, " in str(caught.value)
    assert str(caught.value).endswith("params.Dense_5.kernel and 2 more")


def test_a_damaged_orbax_checkpoint_is_refused(tmp_path: Path) -> None:
    import_or_skip("tensorstore")
    orbax_steps(tmp_path, 7)
    with pytest.raises(ConfigError, match=r"7: record 0 .*, the file is empty"):
        read_network(find_checkpoint(tmp_path), SIZES, "DQN")
    (tmp_path / "7" / "default" / "manifest.ocdbt").write_bytes(b"no manifest")
    with pytest.raises(ConfigError, match="default: expected an orbax checkpoint: ") as caught:
        read_network(find_checkpoint(tmp_path), SIZES, "DQN")
    assert "\n" not in str(caught.value)


def test_without_tensorstore_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    orbax_steps(tmp_path, 7)
    with pytest.raises(MissingDependency, match=r"policyserve\[orbax\]"):
        read_network(find_checkpoint(tmp_path), SIZES, "DQN")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write_eqx(tmp_path / "state.eqx", ppo_state(SIZES))
    path.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        read_network(Checkpoint(path, None), SIZES, "PPO")


def test_the_newest_complete_checkpoint_is_never_one_that_is_being_written(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    write_eqx(tmp_path / "step_9" / "state.eqx", ppo_state(SIZES))
    whole = (tmp_path / "step_9" / "state.eqx").read_bytes()
    (tmp_path / "step_10").mkdir()
    assert newest_checkpoint(tmp_path) == Checkpoint(tmp_path / "step_9" / "state.eqx", 9)
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "step_10" / "state.eqx").write_bytes(whole[:size])
        assert newest_checkpoint(tmp_path) == Checkpoint(tmp_path / "step_9" / "state.eqx", 9)
    (tmp_path / "step_10" / "state.eqx").write_bytes(whole)
    assert newest_checkpoint(tmp_path) == Checkpoint(tmp_path / "step_10" / "state.eqx", 10)


def test_an_orbax_checkpoint_is_complete_once_it_has_its_name_and_its_metadata(tmp_path: Path) -> None:
    (tmp_path / "20.orbax-checkpoint-tmp-1" / "default").mkdir(parents=True)
    (tmp_path / "30" / "default").mkdir(parents=True)
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "30" / "_CHECKPOINT_METADATA").touch()
    assert newest_checkpoint(tmp_path) == Checkpoint(tmp_path / "30", 30)


def test_a_run_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the run's directory of checkpoints is gone, or not there yet"):
        newest_checkpoint(tmp_path / "gone")
