"""A training run on the command line: found by its folder, and served as its own files tell."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.policies import registry
from policyserve.policies.vibe_rl import PPOConfig, TrainConfig, demo_directory
from policyserve.policies.vibe_rl.run_adapter import RunAdapter, RunFlags
from tests.policies.vibe_rl.states import write_eqx
from tests.policies.vibe_rl.test_policy import PPO, STATES

OWN = TrainConfig("Acrobot-v1", PPOConfig(hidden_sizes=PPO.algo.hidden_sizes))
SIZES = {"env_id": "Acrobot-v1", "observation_size": 4, "action_count": 2}


def write_run(folder: Path, environment: Any = SIZES, config: TrainConfig = OWN) -> Path:
    """A run in an environment that the server does not know, with a network of CartPole's sizes."""
    write_eqx(folder / "checkpoints" / "step_7" / "state.eqx", STATES[PPO])
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    if environment is not None:
        (folder / "environment.json").write_text(json.dumps(environment))
    return folder


@pytest.mark.parametrize("below", ["", "checkpoints", "checkpoints/step_7"])
def test_a_run_in_any_environment_is_served_by_its_folder(below: str, tmp_path: Path) -> None:
    adapter = registry.find(f"vibe_rl:{write_run(tmp_path) / below}")
    source = adapter.source(adapter.defaults(None))
    assert (source.title, source.env_id) == ("PPO on Acrobot-v1", "Acrobot-v1")
    policy = source.recipe(print)
    assert policy.spec.name == "acrobot_v1_ppo"
    assert "what Acrobot-v1 shows" in str(policy.spec.describe())
    (chunk,) = policy.infer([PolicyInput({"obs": np.zeros(4, np.float32)})])
    assert isinstance(chunk, ActionChunk)
    assert int(chunk.actions) in (0, 1)


def test_a_demos_folder_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(demo_directory("pendulum_sac"), tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    source = RunAdapter("vibe_rl:~/mine").source(RunFlags(max_batch=3))
    assert source.title == "SAC on Pendulum-v1"
    assert source.origin == f"run {tmp_path / 'mine'}"
    assert source.recipe(print).spec.max_batch == 3


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere", "nowhere: expected a training run's folder, got nothing there"),
        ("notes.txt", "notes.txt: expected a training run's folder, got a file"),
        (".", "expected a training run's config.json in it"),
    ],
)
def test_a_folder_that_is_no_run_is_told(
    target: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("notes.txt").touch()
    with pytest.raises(ConfigError) as refusal:
        RunAdapter(f"vibe_rl:{target}").source(RunFlags())
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["one"], "or in the folder above; did you mean vibe_rl:runs/one?"),
        (["one", "two"], "or in the folder above; it has the runs one, two: take runs/NAME"),
    ],
)
def test_a_folder_of_runs_is_told_which_it_has(
    names: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        write_run(tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        RunAdapter("vibe_rl:runs/").source(RunFlags())
    assert str(refusal.value).endswith(said)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (None, "env_id: expected one of CartPole-v1, "),
        ([], "environment.json: expected a map, got list"),
        ({**SIZES, "env_id": "Ant-v5"}, "env_id: expected 'Acrobot-v1', as in config.json, got 'Ant-v5'"),
        ({**SIZES, "action_size": 2}, "expected one of action_count and action_size, got action_count, action_size"),
        ({"env_id": "Acrobot-v1", "observation_size": 4}, "action_count and action_size, got neither"),
        ({**SIZES, "observation_size": 0}, "observation_size: expected an integer of 1 or more, got 0"),
        ({**SIZES, "action_count": True}, "action_count: expected an integer of 1 or more, got True"),
        ({**SIZES, "observation_size": 6}, "the file looks like PPO with hidden_sizes"),
    ],
)
def test_an_environment_whose_sizes_are_not_told_is_refused(environment: Any, said: str, tmp_path: Path) -> None:
    source = RunAdapter(f"vibe_rl:{write_run(tmp_path, environment)}").source(RunFlags())
    with pytest.raises(ConfigError) as refusal:
        source.recipe(print)
    assert said in str(refusal.value)


def test_an_environment_that_is_known_needs_no_file_and_heeds_none(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"env_id": "other"}, PPO)
    assert RunAdapter(f"vibe_rl:{run}").source(RunFlags()).recipe(print).spec.name == "cartpole_ppo"
    os.remove(run / "environment.json")
    assert RunAdapter(f"vibe_rl:{run}").source(RunFlags()).recipe(print).spec.name == "cartpole_ppo"


def test_flags_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_batch: expected 1 or more, got 0"):
        RunFlags(max_batch=0)
    with pytest.raises(ConfigError, match="--norm-stats-path: expected a value, got nothing"):
        RunFlags(norm_stats_path="")


def test_a_run_can_be_followed_each_checkpoint_by_its_own_recipe(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    source = RunAdapter(f"vibe_rl:{run}").source(RunFlags())
    assert source.newest is not None
    first = source.newest()
    write_eqx(run / "checkpoints" / "step_8" / "state.eqx", STATES[PPO])
    second = source.newest()
    assert first is not None
    assert second is not None
    assert [first.recipe(print).spec.metadata["checkpoint_step"], first.step, second.step] == [7, 7, 8]
    assert second.recipe(print).spec.metadata["checkpoint_step"] == 8
    assert first.stamp != second.stamp
    assert second == source.newest()


def test_one_step_is_no_run_to_follow(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert RunAdapter(f"vibe_rl:{run}").source(RunFlags(step=7)).newest is None
    assert RunAdapter(f"vibe_rl:{run}/checkpoints/step_7").source(RunFlags()).newest is None
