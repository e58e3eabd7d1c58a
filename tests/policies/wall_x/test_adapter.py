"""A Wall-X model on the command line: what its flags stand for, without a model and without its packages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies.wall_x import MODEL_CONFIGS, STAND_IN, ModelConfig, OptionFlags, runtime
from policyserve.policies.wall_x.adapter import WallXAdapter, WallXFlags

ADAPTER = WallXAdapter("wall-x")
STANDING_IN = WallXFlags(model_config=ModelConfig(model_path=STAND_IN))


def test_the_robot_that_is_named_sets_the_defaults() -> None:
    assert ADAPTER.defaults(None).model_config == MODEL_CONFIGS["libero"]
    for env in ("libero", "aloha"):
        assert ADAPTER.defaults(WallXFlags(env=env)).model_config == MODEL_CONFIGS[env]


def test_the_stand_in_needs_no_paths_and_says_what_it_is() -> None:
    source = ADAPTER.source(replace(STANDING_IN, env="aloha"))
    assert source.title == "a stand-in for a Wall-X model of aloha: its actions control nothing"
    policy = source.recipe(print)
    assert policy.spec.metadata["env"] == "aloha"
    assert "stand_in" in policy.spec.metadata
    assert policy.spec.metadata["device"] == "cpu"


def test_the_options_reach_the_policy() -> None:
    flags = replace(STANDING_IN, default_prompt="fold", options=OptionFlags(allow_missing_state=True, max_batch=3))
    spec = ADAPTER.source(flags).recipe(print).spec
    assert spec.max_batch == 3
    assert spec.leaves["state"].optional
    assert "fold" in str(spec.describe())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {},
            "expected a path of your own for --model-config.model-path, .*; .* stand-in serves numbers",
        ),
        (
            {"model_config": ModelConfig(model_path="/m")},
            "for --model-config.action-tokenizer-path, --model-conf",
        ),
        ({"options": OptionFlags(num_steps=0)}, "num_steps: expected 1 … 1000, got 0"),
        (
            {"options": OptionFlags(rtc="guided")},
            "--rtc: expected off with --model-config.predict-mode fast, which samples no actions, got guided",
        ),
        (
            {"options": OptionFlags(rtc="inpaint", rtc_schedule="exp")},
            "rtc_schedule: expected none with --rtc inpaint, got 'exp'",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(": .*", "; .*")):
        ADAPTER.source(WallXFlags(**flags))


def test_what_loading_finds_wrong_with_a_path_names_its_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "_PACKAGES", {})
    paths = ModelConfig(model_path="nowhere", action_tokenizer_path=str(tmp_path), train_config_path=str(tmp_path))
    load = ADAPTER.source(WallXFlags(model_config=replace(paths, device="cpu"))).recipe
    with pytest.raises(ConfigError, match=r"^--model-config.model-path: nowhere does not exist"):
        load(print)


def test_a_missing_package_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_PACKAGES", {"a_package_that_nobody_has": "nobodys"})
    paths = ModelConfig(model_path="/m", action_tokenizer_path="/a", train_config_path="/t")
    with pytest.raises(MissingDependency, match="nobodys"):
        ADAPTER.source(WallXFlags(model_config=paths))


@pytest.mark.parametrize("name", ["model_path", "action_tokenizer_path", "train_config_path"])
def test_a_path_that_was_given_nothing_is_refused_by_its_flag(name: str) -> None:
    flag = f"--model-config.{name.replace('_', '-')}"
    with pytest.raises(ConfigError, match=f"{flag}: expected a value, got nothing"):
        WallXFlags(model_config=replace(STANDING_IN.model_config, **{name: ""}))


def test_a_prompt_that_was_given_nothing_is_refused_by_its_flag() -> None:
    with pytest.raises(ConfigError, match="--default-prompt: expected a value, got nothing"):
        replace(STANDING_IN, default_prompt="")


def test_the_robot_says_what_a_gpu_is_warmed_with() -> None:
    adapter = WallXAdapter("wall-x")
    assert adapter.defaults(None).options.options().image_sizes(2) == [(256, 256)] * 2
    assert adapter.defaults(WallXFlags(env="aloha")).options.options().image_sizes(3) == [(480, 640)] * 3
