"""The run's own config.json: where it is found, what it goes before, and what the log says."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.cli.arguments.parsing import parse
from policyserve.core.errors import ConfigError
from policyserve.core.policy import PolicyInput
from policyserve.policies.vibe_rl import (
    PRESETS,
    DQNConfig,
    PPOConfig,
    SACConfig,
    TrainConfig,
    create_trained_policy,
    demo_directory,
    load_demo,
    load_train_config,
    starting_config,
)
from policyserve.policies.vibe_rl.adapter import PresetAdapter, PresetFlags
from policyserve.policies.vibe_rl.run_config import choose_config, find_run_config
from tests.policies.vibe_rl.states import write_eqx
from tests.policies.vibe_rl.test_config import GOLDEN_CONFIGS
from tests.shared import shared_path

SAC = TrainConfig("Pendulum-v1", SACConfig((8, 6), action_low=-2.0, action_high=2.0))
POSES = np.array([[-1.0, 0.05, 3.0], [1.0, 0.0, 0.0], [0.2, 0.9, -4.0]], np.float32)


def write_config(folder: Path, config: TrainConfig = SAC, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**asdict(config), **more}))
    return folder / "config.json"


def write_run(folder: Path, config: TrainConfig = SAC) -> Path:
    """A run directory with two empty checkpoints; returns the directory of the checkpoints."""
    write_config(folder, config)
    for step in (1, 2):
        write_eqx(folder / "checkpoints" / f"step_{step}" / "state.eqx", [])
    return folder / "checkpoints"


def found(folder: Path | str) -> TrainConfig | None:
    run = find_run_config(folder)
    return None if run is None else run.config


@pytest.fixture
def pendulum(tmp_path: Path) -> Path:
    """A copy of the Pendulum demo's run, with bounds and sizes that differ from the preset's: its checkpoints."""
    shutil.copytree(demo_directory("pendulum_sac"), tmp_path / "pendulum")
    return tmp_path / "pendulum" / "checkpoints"


def actions(policy: Any) -> Any:
    return np.stack([policy.infer([PolicyInput({"obs": pose})])[0].actions for pose in POSES])


def test_the_checkpoints_directory_comes_before_its_parent(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    assert found(folder) is None
    write_config(tmp_path / "run")
    assert found(folder) == SAC
    other = replace(SAC, env_id="Other-v1")
    write_config(folder, other)
    assert found(str(folder)) == other


def test_the_run_around_one_steps_own_directory_is_found(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "best").symlink_to("step_1")
    (folder / "named").write_text("step_2\n")
    (folder / "30" / "default").mkdir(parents=True)
    for name in ("step_1", "best", "named", "30"):
        assert found(folder / name) == SAC
    (folder / "another").mkdir()
    assert found(folder / "another") is None


def test_the_run_behind_a_link_is_found_after_what_lies_beside_the_link(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    linked = tmp_path / "deploy" / "current"
    linked.symlink_to(write_run(tmp_path / "runs" / "x"))
    assert found(linked) == SAC
    beside = replace(SAC, env_id="Other-v1")
    write_config(tmp_path / "deploy", beside)
    assert found(linked) == beside


def test_the_working_directory_is_a_checkpoint_directory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_run(tmp_path / "run"))
    assert found(".") == SAC


def test_a_directory_that_does_not_exist_has_no_run_around_it(tmp_path: Path) -> None:
    write_config(tmp_path)
    assert found(tmp_path / "chekpoints") is None


@pytest.mark.parametrize("content", ["{}", "[1]", '{"model_type": "qwen"}', '{"algo": "ppo"}'])
def test_a_config_of_something_else_is_passed_over_with_a_line_in_the_log(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "config.json").write_text(content)
    with caplog.at_level(logging.INFO):
        assert found(folder) == SAC
    assert f"{folder / 'config.json'} is not used: it has no algo" in caplog.text


@pytest.mark.parametrize("content", ["{", '{"algo": {}}', '{"algo": {"tau": 0.1, "action_hihg": 2}}'])
def test_a_run_config_that_is_malformed_is_an_error_that_names_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json: "):
        find_run_config(tmp_path)


@pytest.mark.parametrize("name", GOLDEN_CONFIGS)
def test_the_originals_runs_say_themselves_how_they_were_trained(name: str) -> None:
    golden = shared_path("vibe_rl", "golden", name)
    assert found(golden / "checkpoints") == load_train_config(golden / "config.json")


def test_without_a_config_the_runs_own_is_served(pendulum: Path) -> None:
    np.testing.assert_array_equal(actions(create_trained_policy(None, pendulum)), actions(load_demo("pendulum_sac")))
    assert np.abs(actions(create_trained_policy(None, pendulum / "step_28000", rescale_actions=False))).max() <= 1


def test_with_neither_a_config_nor_a_run_the_error_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"expected a TrainConfig, or a training run's config\.json in .*, got neither"
    ):
        create_trained_policy(None, tmp_path)


def flags(preset: str, folder: Path, *argv: str) -> PresetFlags:
    """The flags that `policyserve serve` reads."""
    adapter = PresetAdapter(preset)
    first = parse(PresetFlags, "serve", [f"--checkpoint-dir={folder}", *argv], adapter.defaults(None))
    return parse(PresetFlags, "serve", [f"--checkpoint-dir={folder}", *argv], adapter.defaults(first))


def test_a_presets_flags_start_from_the_run(pendulum: Path) -> None:
    assert flags("pendulum_sac", pendulum).config == load_train_config(pendulum.parent / "config.json")
    (pendulum.parent / "config.json").unlink()
    assert flags("pendulum_sac", pendulum).config == PRESETS["pendulum_sac"].config


@pytest.mark.parametrize("high", [1.5, 1.0])
def test_a_flag_goes_before_the_run_even_if_it_says_what_the_preset_says(high: float, pendulum: Path) -> None:
    assert PRESETS["pendulum_sac"].config.algo == SACConfig(action_high=1.0)
    algo = flags("pendulum_sac", pendulum, "--config.algo.action-high", str(high)).config.algo
    assert isinstance(algo, SACConfig)
    assert (algo.action_low, algo.action_high, algo.hidden_sizes) == (-2.0, high, (64, 64))


def told(config: TrainConfig | None, folder: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """Level and text of the only line that choosing a config logs."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        choose_config(config, folder)
    (record,) = caplog.records
    return record.levelno, record.getMessage()


def test_one_line_says_what_the_run_changes_and_why(pendulum: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert told(None, pendulum, caplog) == (
        logging.INFO,
        f"run config {pendulum.parent / 'config.json'} (SAC on Pendulum-v1): "
        "hidden_sizes (64, 64), not (256, 256) as in preset pendulum_sac; "
        "action_low -2.0, not -1.0 as in preset pendulum_sac; action_high 2.0, not 1.0 as in preset pendulum_sac; "
        "a run's config goes before a preset, and what is given goes before both",
    )


def test_one_line_warns_of_what_was_given_against_the_run(pendulum: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = load_train_config(pendulum.parent / "config.json")
    level, text = told(replace(run, algo=replace(run.algo, action_high=1.0)), pendulum, caplog)
    assert level == logging.WARNING
    assert "action_high 1.0 as given, not 2.0 as in the run; " in text
    assert "action_low -2.0, not -1.0 as in preset" in text
    level, text = told(TrainConfig("Pendulum-v1", PPOConfig((64, 64))), pendulum, caplog)
    assert level == logging.WARNING
    assert "algorithm PPO as given, not SAC as in the run" in text
    assert "action_low" not in text


def test_a_run_like_its_preset_is_served_as_it_says_whatever_does_not_matter_for_serving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = PRESETS["cartpole_dqn"].config
    write_config(tmp_path, config)
    other = replace(config, algo=replace(config.algo, lr=1.0), runner=replace(config.runner, seed=9))
    for served in (config, other, None):
        level, text = told(served, tmp_path, caplog)
        assert (level, text.split(": ")[1]) == (logging.INFO, "served as it says")


def test_keys_of_the_runner_that_nobody_knows_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_config(tmp_path, runner={"seed": 3, "wandb": True, "logger": "x"})
    assert found(tmp_path) is not None
    assert not caplog.records  # who only looks for the file says nothing
    choose_config(None, tmp_path)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{tmp_path / 'config.json'}: runner: ignored, as nothing here knows it: wandb, logger"
    ]


@pytest.mark.parametrize(
    ("preset", "run", "cure"),
    [
        ("cartpole_ppo", SAC, "expected a run of cartpole_ppo (PPO on CartPole-v1), got SAC on Pendulum-v1: "
         "serve it with pendulum_sac, or put the checkpoint's own config.json into"),
        ("cartpole_dqn", PRESETS["gridworld_dqn"].config, "got DQN on GridWorld-v0: serve it with gridworld_dqn,"),
        ("pendulum_sac", TrainConfig("PixelGridWorld-v0", DQNConfig()), "serve it with cartpole_dqn or gridworld_dqn,"),
    ],
)  # fmt: skip
def test_a_run_of_another_preset_is_refused_with_the_right_one(
    preset: str, run: TrainConfig, cure: str, tmp_path: Path
) -> None:
    path = write_config(tmp_path, run)
    with pytest.raises(ConfigError) as caught:
        starting_config(preset, tmp_path)
    assert str(caught.value).startswith(f"{path}: expected a run of {preset}")
    assert cure in str(caught.value)


def test_a_run_that_no_preset_is_made_for_is_served_by_any_preset_of_its_algorithm(tmp_path: Path) -> None:
    run = TrainConfig("PixelGridWorld-v0", DQNConfig((16,)))
    write_config(tmp_path, run)
    presets: Sequence[str] = ("gridworld_dqn", "cartpole_dqn")
    assert [starting_config(preset, tmp_path) for preset in presets] == [run, run]
