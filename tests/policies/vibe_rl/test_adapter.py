"""A preset on the command line: its flags, and what stands in for a checkpoint that is not given."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.stacked import StackedPolicy
from policyserve.policies.vibe_rl import PRESETS, demo_config, demo_directory
from policyserve.policies.vibe_rl.adapter import PresetAdapter, PresetFlags

CHECKPOINTS = str(demo_directory("pendulum_sac") / "checkpoints")


def test_the_demos_own_config_is_the_default_until_a_checkpoint_is_given() -> None:
    adapter = PresetAdapter("pendulum_sac")
    assert adapter.defaults(None).config == demo_config("pendulum_sac")
    assert adapter.defaults(PresetFlags(step=3)).config == demo_config("pendulum_sac")
    assert adapter.defaults(PresetFlags(checkpoint_dir="runs")).config == PRESETS["pendulum_sac"].config
    assert PresetAdapter("cartpole_dqn").defaults(None).config == PRESETS["cartpole_dqn"].config
    strict = PresetAdapter("pendulum_sac", needs_checkpoint=True)
    assert strict.defaults(None).config == PRESETS["pendulum_sac"].config


def test_a_checkpoint_or_the_demo_is_what_is_loaded_and_told() -> None:
    adapter = PresetAdapter("pendulum_sac")
    demo = adapter.source(adapter.defaults(None))
    given = adapter.source(PresetFlags(checkpoint_dir=CHECKPOINTS, config=demo_config("pendulum_sac")))
    assert demo.title == "pendulum_sac: SAC on Pendulum-v1 (continuous control)"
    assert demo.origin.startswith("the demo checkpoint that ships with policyserve")
    assert given.origin == CHECKPOINTS
    assert demo.env_id == given.env_id == "Pendulum-v1"
    for source in (demo, given):
        assert isinstance(source.recipe(print), StackedPolicy)


def test_a_checkpoint_is_asked_for_where_nothing_stands_in_for_it() -> None:
    for adapter, said in (
        (PresetAdapter("cartpole_dqn"), "--checkpoint-dir is required: demos ship for cartpole_ppo, pendulum_sac only"),
        (PresetAdapter("cartpole_ppo", needs_checkpoint=True), "--checkpoint_dir is required"),
    ):
        with pytest.raises(ConfigError, match=f"^{said}$"):
            adapter.source(adapter.defaults(None))


def test_a_directory_that_is_not_there_is_found_while_loading() -> None:
    source = PresetAdapter("cartpole_ppo").source(PresetFlags(checkpoint_dir="/nowhere"))
    with pytest.raises(ConfigError, match="checkpoint directory not found: /nowhere"):
        source.recipe(print)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"checkpoint_dir": ""}, "--checkpoint-dir: expected a value, got nothing"),
        ({"norm_stats_path": ""}, "--norm-stats-path: expected a value, got nothing"),
        ({"max_batch": 0}, "max_batch: expected 1 or more, got 0"),
    ],
)
def test_a_flag_that_can_never_be_is_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PresetFlags(**flags)
