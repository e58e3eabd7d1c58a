"""config.json of a training run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl.config import (
    DQNConfig,
    PPOConfig,
    RunnerConfig,
    SACConfig,
    TrainConfig,
    load_train_config,
    read_train_config,
)
from tests.shared import shared_path

GOLDEN_CONFIGS = {
    "cartpole_dqn": DQNConfig,
    "cartpole_ppo": PPOConfig,
    "cartpole_ppo_norm": PPOConfig,
    "cartpole_ppo_shared": PPOConfig,
    "gridworld_dqn": DQNConfig,
    "pendulum_sac": SACConfig,
    "pendulum_sac_norm": SACConfig,
    "pendulum_sac_pm2": SACConfig,
    "pixelgrid_dqn_flat": DQNConfig,
}


def dumped(config: TrainConfig) -> Any:
    return json.loads(json.dumps(asdict(config)))


@pytest.mark.parametrize("algo", [PPOConfig(shared_backbone=True), DQNConfig((16,)), SACConfig(action_low=-2.0)])
def test_a_dumped_config_comes_back(algo: Any) -> None:
    config = TrainConfig("Pendulum-v1", algo, RunnerConfig(num_devices=2, checkpoint_dir="there", plot=False))
    assert read_train_config(dumped(config), "config.json") == config


def test_fields_left_out_have_their_defaults() -> None:
    assert read_train_config({"algo": {"tau": 1}}, "config.json") == TrainConfig(algo=SACConfig(tau=1.0))


def test_keys_of_the_runner_that_nobody_knows_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    values = dumped(TrainConfig(runner=RunnerConfig(seed=3)))
    values["runner"]["wandb"] = {"project": "x"}
    assert read_train_config(values, "config.json").runner == RunnerConfig(seed=3)
    assert [record.getMessage() for record in caplog.records] == [
        "config.json: runner: ignored, as nothing here knows it: wandb"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "config.json: expected a map, got []"),
        ({"algorithm": {}}, "config.json: expected only env_id, algo, runner, got 'algorithm'; did you mean algo?"),
        ({"algo": {}}, "algo: expected a map with clip_eps (PPO), epsilon_start (DQN) or tau (SAC), got an empty map"),
        ({"algo": {"lr": 1}}, "epsilon_start (DQN) or tau (SAC), got lr"),
        ({"algo": None}, "epsilon_start (DQN) or tau (SAC), got None"),
        ({"env_id": 3}, "config.json: env_id: expected a text, got 3"),
        ({"algo": {"tau": 0.1, "action_hi": 2}}, "got 'action_hi'; did you mean action_high?"),
        ({"algo": {"tau": "0.1"}}, "config.json: algo/tau: expected a finite number, got '0.1'"),
        ({"algo": {"tau": True}}, "algo/tau: expected a finite number, got True"),
        ({"algo": {"tau": 0.1, "action_low": float("nan")}}, "algo/action_low: expected a finite number, got nan"),
        ({"algo": {"tau": 0.1, "hidden_sizes": 64}}, "algo/hidden_sizes: expected a list of positive integers, got 64"),
        ({"algo": {"tau": 0.1, "hidden_sizes": [64, 0]}}, "algo/hidden_sizes: expected a list of positive integers"),
        ({"algo": {"clip_eps": 0.1, "shared_backbone": 1}}, "algo/shared_backbone: expected true or false, got 1"),
        ({"algo": {"clip_eps": 0.1, "n_steps": 1.5}}, "algo/n_steps: expected an integer, got 1.5"),
        ({"runner": {"num_devices": "all"}}, "runner/num_devices: expected an integer or null, got 'all'"),
        ({"runner": {"checkpoint_dir": 1}}, "runner/checkpoint_dir: expected a text or null, got 1"),
        ({"runner": [1]}, "config.json: runner: expected a map, got [1]"),
    ],
)
def test_a_malformed_config_is_refused_by_key(change: Any, message: str) -> None:
    values = {**dumped(TrainConfig()), **change} if isinstance(change, dict) else change
    with pytest.raises(ConfigError) as caught:
        read_train_config(values, "config.json")
    assert message in str(caught.value)


def test_a_file_that_is_missing_or_no_json_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read: No such file"):
        load_train_config(tmp_path / "config.json")
    for content in (b"{", b"\xff\xfe", b"[" * 100_000, b""):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"config\.json: expected JSON, got ."):
            load_train_config(tmp_path / "config.json")


@pytest.mark.parametrize("name", GOLDEN_CONFIGS)
def test_the_originals_own_configs_are_read_whole(name: str) -> None:
    path = shared_path("vibe_rl", "golden", name, "config.json")
    config = load_train_config(path)
    assert type(config.algo) is GOLDEN_CONFIGS[name]
    assert dumped(config) == json.loads(path.read_text())
    assert replace(config) == config
