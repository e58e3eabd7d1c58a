"""From config and checkpoint to a policy: what it takes and answers, and what is refused."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.policy import Policy, PolicyInput
from policyserve.policies.stacked import StackedPolicy
from policyserve.policies.vibe_rl import DQNConfig, PPOConfig, SACConfig, TrainConfig, create_trained_policy
from tests.policies.frameworks import import_or_skip
from tests.policies.vibe_rl.states import dqn_state, ppo_state, sac_state, write_eqx

PPO = TrainConfig("CartPole-v1", PPOConfig((8, 6)))
DQN = TrainConfig("GridWorld-v0", DQNConfig((8,)))
SAC = TrainConfig("Pendulum-v1", SACConfig((8, 6), action_low=-2.0, action_high=2.0))
STATES = {PPO: ppo_state((4, 8, 6, 2)), DQN: dqn_state((2, 8, 4)), SAC: sac_state((3, 8, 6, 1))}
BACKENDS = ["numpy", "jax"]


def load(folder: Path, config: TrainConfig, **options: Any) -> StackedPolicy:
    """Write a checkpoint that fits the config, and load it."""
    if options.get("backend") == "jax":
        import_or_skip("jax")
    write_eqx(folder / "step_7" / "state.eqx", STATES[config])
    return create_trained_policy(config, folder, **options)


def write_stats(folder: Path, **stats: tuple[Any, Any]) -> Path:
    path = folder / "norm_stats.json"
    entries = {key: {"mean": mean, "std": std, "q01": 0, "q99": 1} for key, (mean, std) in stats.items()}
    path.write_text(json.dumps(entries))
    return path


def act(policy: StackedPolicy, observation: Any) -> Any:
    return policy.infer([PolicyInput({"obs": np.asarray(observation, np.float32)})])[0].actions


@pytest.mark.parametrize("config", STATES, ids=["ppo", "dqn", "sac"])
def test_the_spec_says_what_the_environment_has(config: TrainConfig, tmp_path: Path) -> None:
    policy = load(tmp_path, config)
    assert isinstance(policy, Policy)
    size = {"CartPole-v1": 4, "GridWorld-v0": 2, "Pendulum-v1": 3}[config.env_id]
    assert str(policy.spec.leaves["obs"]) == f"float32 ({size},)"
    assert str(policy.spec.action) == ("float32 (1,)" if config is SAC else "int32 ()")
    assert policy.spec.horizon is None
    assert (policy.spec.max_batch, policy.spec.max_client_batch) == (64, 16_384)
    policy.close()


def test_the_metadata_says_what_is_served(tmp_path: Path) -> None:
    metadata = load(tmp_path, SAC).spec.metadata
    assert json.loads(json.dumps(metadata)) == {
        "preset": "pendulum_sac",
        "env_id": "Pendulum-v1",
        "algorithm": "SAC",
        "checkpoint_step": 7,
        "backend": "numpy",
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("config", STATES, ids=["ppo", "dqn", "sac"])
def test_a_batch_of_n_equals_n_singles(config: TrainConfig, backend: str, tmp_path: Path) -> None:
    policy = load(tmp_path, config, backend=backend, max_batch=16)
    size = policy.spec.example()["obs"].size
    rows = np.random.default_rng(0).normal(size=(37, size)).astype(np.float32)
    singles = [policy.spec.check_actions(act(policy, row)) for row in rows]
    together = [chunk.actions for chunk in policy.infer([PolicyInput({"obs": row}) for row in rows])]
    (own,) = policy.infer([PolicyInput({"obs": rows}, batch_size=len(rows))])
    np.testing.assert_allclose(together, singles, atol=1e-6)
    np.testing.assert_allclose(policy.spec.check_actions(own.actions, len(rows)), singles, atol=1e-6)
    (none,) = policy.infer([PolicyInput({"obs": rows[:0]}, batch_size=0)])
    assert policy.spec.check_actions(none.actions, 0).shape == (0, *np.shape(singles[0]))


def test_jax_is_padded_to_buckets_that_can_all_be_warmed(tmp_path: Path) -> None:
    assert load(tmp_path, PPO, backend="jax", max_batch=24).buckets == (1, 2, 4, 8, 16, 24)
    assert load(tmp_path, PPO).buckets is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_sac_answers_in_the_environments_unit(backend: str, tmp_path: Path) -> None:
    rows = [[0.1, 0.9, -1.0], [5.0, -3.0, 8.0]]
    raw = load(tmp_path, SAC, backend=backend, rescale_actions=False)
    rescaled = load(tmp_path, SAC, backend=backend)
    assert raw.spec.action is not None
    assert rescaled.spec.action is not None
    assert raw.spec.action.doc.endswith("-1 … 1")
    assert rescaled.spec.action.doc.endswith("-2 … 2")
    for row in rows:
        np.testing.assert_allclose(act(rescaled, row), 2 * act(raw, row), atol=1e-6)


def test_bounds_that_are_not_symmetric_are_kept(tmp_path: Path) -> None:
    config = replace(SAC, algo=replace(SAC.algo, action_low=1.0, action_high=4.0))
    write_eqx(tmp_path / "state.eqx", STATES[SAC])
    raw = create_trained_policy(config, tmp_path, rescale_actions=False)
    rescaled = create_trained_policy(config, tmp_path)
    np.testing.assert_allclose(act(rescaled, [0, 1, 0]), 1 + 1.5 * (act(raw, [0, 1, 0]) + 1), atol=1e-6)


def test_action_statistics_come_after_rescaling(tmp_path: Path) -> None:
    plain = act(load(tmp_path, SAC), [0, 1, 0])
    raw = act(load(tmp_path, SAC, rescale_actions=False), [0, 1, 0])
    write_stats(tmp_path, action=([10], [3]))
    np.testing.assert_allclose(act(load(tmp_path, SAC), [0, 1, 0]), 3 * plain + 10, rtol=1e-6)
    np.testing.assert_allclose(act(load(tmp_path, SAC, rescale_actions=False), [0, 1, 0]), 3 * raw + 10, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_observations_are_normalized(backend: str, tmp_path: Path) -> None:
    plain = act(load(tmp_path, SAC, backend=backend), [0.5, 0.25, -1])
    write_stats(tmp_path, obs=([1, 2, 3], [2, 4, 8]))
    np.testing.assert_allclose(act(load(tmp_path, SAC, backend=backend), [2, 3, -5]), plain, atol=1e-6)


def test_the_keys_of_the_statistics_can_be_named(tmp_path: Path) -> None:
    plain = act(load(tmp_path, SAC), [0.5, 0.25, -1])
    write_stats(tmp_path, obs=([9, 9, 9], [9, 9, 9]), state=([1, 2, 3], [2, 4, 8]), torque=(1, 1))
    policy = load(tmp_path, SAC, obs_norm_key="state", action_norm_key="torque")
    np.testing.assert_allclose(act(policy, [2, 3, -5]), plain + 1, atol=1e-6)


def test_action_statistics_of_a_discrete_policy_are_ignored_with_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = act(load(tmp_path, PPO), [1, 2, 3, 4])
    write_stats(tmp_path, action=(1.5, 2))
    with caplog.at_level(logging.INFO):
        action = act(load(tmp_path, PPO), [1, 2, 3, 4])
    assert action == plain
    assert action.dtype == np.int32
    assert caplog.text.count("norm stats of 'action' are not used") == 1


def test_statistics_of_another_size_are_refused_at_the_start(tmp_path: Path) -> None:
    write_stats(tmp_path, obs=([0] * 4, [1] * 4))
    with pytest.raises(ConfigError, match="obs/mean: expected 3 numbers, got 4"):
        load(tmp_path, SAC)


def test_an_image_environment_takes_the_flat_image(tmp_path: Path) -> None:
    write_eqx(tmp_path / "state.eqx", dqn_state((4800, 4, 4)))
    policy = create_trained_policy(TrainConfig("PixelGridWorld-v0", DQNConfig((4,))), tmp_path)
    valid = policy.spec.validate({"obs": np.zeros(4800, np.uint8)})
    policy.spec.check_actions(policy.infer([PolicyInput(valid.observation)])[0].actions)


def test_the_step_asked_for_is_the_one_served(tmp_path: Path) -> None:
    write_eqx(tmp_path / "step_1" / "state.eqx", sac_state((3, 8, 6, 1), seed=1))
    assert load(tmp_path, SAC).spec.metadata["checkpoint_step"] == 7
    first = load(tmp_path, SAC, step=1)
    assert first.spec.metadata["checkpoint_step"] == 1
    assert not np.allclose(act(first, [0, 1, 0]), act(load(tmp_path, SAC), [0, 1, 0]))


REFUSED: Mapping[str, tuple[TrainConfig, Mapping[str, Any], str]] = {
    "ppo on pendulum": (TrainConfig("Pendulum-v1", PPOConfig()), {}, "discrete actions only .*use pendulum_sac"),
    "sac on cartpole": (TrainConfig("CartPole-v1", SACConfig()), {}, "SAC is for continuous actions"),
    "environment": (TrainConfig("Ant-v4"), {}, "env_id: expected one of CartPole-v1, "),
    "sizes": (
        TrainConfig("CartPole-v1", PPOConfig((64, 64))),
        {},
        r"record 0 .*looks like PPO with hidden_sizes \(8, 6\)",
    ),
    "backend": (PPO, {"backend": "torch"}, "backend: expected numpy or jax, got 'torch'"),
    "step": (PPO, {"step": 8}, "got step 7"),
    "max_batch": (PPO, {"max_batch": 0}, "max_batch: expected at least 1, got 0"),
    "max_client_batch": (PPO, {"max_client_batch": -1}, "max_client_batch: expected at least 0, got -1"),
    "norm stats": (PPO, {"norm_stats_path": "missing.json"}, r"norm_stats_path: no such file: missing\.json"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_together_is_refused(what: str, tmp_path: Path) -> None:
    config, options, message = REFUSED[what]
    write_eqx(tmp_path / "step_7" / "state.eqx", STATES[PPO])
    with pytest.raises(ConfigError, match=message):
        create_trained_policy(config, tmp_path, **options)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, -2.0), (-1.0, np.inf), (np.nan, 1.0)])
def test_bounds_in_the_wrong_order_and_without_end_are_refused(bounds: tuple[float, float], tmp_path: Path) -> None:
    config = replace(SAC, algo=replace(SAC.algo, action_low=bounds[0], action_high=bounds[1]))
    write_eqx(tmp_path / "state.eqx", STATES[SAC])
    with pytest.raises(ConfigError, match="expected finite numbers, low < high"):
        create_trained_policy(config, tmp_path)


def test_without_jax_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    write_eqx(tmp_path / "state.eqx", STATES[PPO])
    with pytest.raises(MissingDependency, match=r"policyserve\[jax\]"):
        create_trained_policy(PPO, tmp_path, backend="jax")


def test_a_preset_is_served_without_importing_any_framework(tmp_path: Path) -> None:
    write_eqx(tmp_path / "state.eqx", STATES[PPO])
    program = (
        "import sys\n"
        "from policyserve.policies.vibe_rl import *\n"
        f"create_trained_policy(TrainConfig('CartPole-v1', PPOConfig((8, 6))), {str(tmp_path)!r})\n"
        "print(sorted({'jax', 'equinox', 'tensorstore', 'torch', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr
