"""Every recorded answer of the original's policies, on both backends, singly and in one batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.policy import PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.policies.stacked import StackedPolicy
from policyserve.policies.vibe_rl import create_trained_policy, equinox_policy, load_equinox, load_train_config
from policyserve.transforms import (
    ComposeTransforms,
    NormalizeInput,
    ResizeImageInput,
    UnnormalizeOutput,
    read_norm_stats,
)
from tests.policies.frameworks import import_or_skip
from tests.shared import shared_path

ATOL = 2e-5  # XLA and NumPy sum in different orders; discrete actions are equal all the same

# Every folder of goldens, and every step that one has answers for.
STEPS = [
    ("cartpole_dqn", 30_000),
    ("cartpole_dqn", 100_000),
    ("cartpole_ppo", 25_600),
    ("cartpole_ppo", 102_400),
    ("cartpole_ppo", 512_000),
    ("cartpole_ppo_norm", 102_400),
    ("cartpole_ppo_norm", 307_200),
    ("cartpole_ppo_shared", 204_800),
    ("gridworld_dqn", 10_000),
    ("gridworld_dqn", 25_000),
    ("pendulum_sac", 24_000),
    ("pendulum_sac_norm", 16_000),
    ("pendulum_sac_pm2", 22_000),
    ("pixelgrid_dqn_flat", 15_000),
]
BEST = [("cartpole_ppo", 512_000), ("cartpole_ppo_norm", 307_200), ("pendulum_sac", 24_000), ("gridworld_dqn", 25_000)]
ORBAX = [("cartpole_dqn", 100_000), ("gridworld_dqn", 25_000), ("pendulum_sac_pm2", 22_000)]


def golden(name: str) -> Path:
    return shared_path("vibe_rl", "golden", name)


def answers(name: str, step: int) -> Any:
    main_step = json.loads((golden(name) / "serve.json").read_text())["main_step"]
    return np.load(golden(name) / ("golden.npz" if step == main_step else f"golden_step_{step}.npz"))


def load(name: str, folder: str, **options: Any) -> StackedPolicy:
    # The original rescales SAC's actions only where there are action statistics; pendulum_sac_pm2 has none.
    config = load_train_config(golden(name) / "config.json")
    is_raw = name == "pendulum_sac_pm2"
    return create_trained_policy(config, golden(name) / folder, rescale_actions=not is_raw, **options)


def check(policy: StackedPolicy, recorded: Any) -> None:
    observations = recorded["obs"]
    singly = [policy.infer([PolicyInput({"obs": row})])[0].actions for row in observations]
    together = [chunk.actions for chunk in policy.infer([PolicyInput({"obs": row}) for row in observations])]
    (own,) = policy.infer([PolicyInput({"obs": observations}, batch_size=len(observations))])
    for actions, expected in (
        (np.stack(singly), recorded["action"]),
        (np.stack(together), recorded["action_batch"]),
        (own.actions, recorded["action_batch"]),
    ):
        assert (actions.dtype, actions.shape) == (expected.dtype, expected.shape)
        if expected.dtype == np.int32:
            np.testing.assert_array_equal(actions, expected)
        else:
            np.testing.assert_allclose(actions, expected, rtol=0, atol=ATOL, equal_nan=True)


def test_no_golden_is_left_out() -> None:
    folders = {path.name for path in shared_path("vibe_rl", "golden").iterdir()}
    assert folders == {*(name for name, _ in STEPS), "image_cnn_dict"}
    for name in {name for name, _ in STEPS}:
        assert sorted(json.loads((golden(name) / "serve.json").read_text())["steps"]) == [
            step for other, step in STEPS if other == name
        ]


@pytest.mark.parametrize("backend", ["numpy", "jax"])
@pytest.mark.parametrize(("name", "step"), STEPS)
def test_actions_are_those_of_the_original(name: str, step: int, backend: str) -> None:
    if backend == "jax":
        import_or_skip("jax")
    policy = load(name, "checkpoints", step=step, backend=backend)
    assert policy.spec.metadata["checkpoint_step"] == step
    check(policy, answers(name, step))


@pytest.mark.parametrize(("name", "step"), ORBAX)
def test_actions_from_orbax_are_those_of_the_original(name: str, step: int) -> None:
    import_or_skip("tensorstore")
    policy = load(name, "orbax")
    assert policy.spec.metadata["checkpoint_step"] == step
    check(policy, answers(name, step))


@pytest.mark.parametrize(("name", "step"), BEST)
def test_best_is_served_as_what_it_names(name: str, step: int) -> None:
    stats = golden(name) / "norm_stats.json"  # beside checkpoints/, where nobody looks who was sent to best
    policy = load(name, "checkpoints/best", norm_stats_path=stats if stats.exists() else None)
    assert policy.spec.metadata["checkpoint_step"] == step
    check(policy, answers(name, step))


def image_policy() -> tuple[StackedPolicy, Any]:
    """The user-built policy of the original's goldens: image and state encoders, a head, statistics around them."""
    jax, eqx = import_or_skip("jax"), import_or_skip("equinox")
    from policyserve.policies.vibe_rl.encoders import CNNEncoder, MLPEncoder

    folder = golden("image_cnn_dict")
    sizes = json.loads((folder / "config.json").read_text())

    class ImageStatePolicy(eqx.Module):
        image_encoder: Any
        state_encoder: Any
        head: Any

        def __call__(self, obs: Any) -> Any:
            features = [self.image_encoder(obs["image"] / 255.0), self.state_encoder(obs["state"])]
            return jax.numpy.tanh(self.head(jax.numpy.concatenate(features)))

    def build(key: Any) -> Any:
        cnn = ("height", "width", "channels", "channel_sizes", "kernel_sizes", "strides", "mlp_hidden")
        features = sizes["mlp_hidden"] + sizes["state_hidden"][-1]
        return ImageStatePolicy(
            CNNEncoder(**{name: sizes[name] for name in cnn}, key=key),
            MLPEncoder(sizes["state_dim"], sizes["state_hidden"], key=key),
            eqx.nn.Linear(features, sizes["action_dim"], key=key),
        )

    stats = read_norm_stats(json.loads((folder / "norm_stats.json").read_text()), "norm_stats.json")
    policy = equinox_policy(
        load_equinox(eqx.filter_eval_shape(build, jax.random.PRNGKey(0)), folder / "checkpoints"),
        lambda model, obs: model(obs),
        ComposeTransforms(
            [
                NormalizeInput(stats["state"].mean, stats["state"].std, key="state"),
                ResizeImageInput(sizes["height"], sizes["width"], key="image"),
            ]
        ),
        UnnormalizeOutput(stats["action"].mean, stats["action"].std),
        spec=PolicySpec(
            "image_cnn_dict",
            {"state": ArraySpec((sizes["state_dim"],)), "image": ImageSpec(dtypes=("uint8", "float32"))},
            ArraySpec((sizes["action_dim"],)),
            max_batch=32,
            max_client_batch=128,
        ),
    )
    assert isinstance(policy, StackedPolicy)
    return policy, np.load(folder / "golden.npz")


def test_a_user_built_image_policy_answers_as_the_original() -> None:
    policy, recorded = image_policy()
    rows = [{"state": state, "image": image} for state, image in zip(recorded["state"], recorded["image"], strict=True)]
    singly = [policy.infer([PolicyInput(row)])[0].actions for row in rows]
    together = [chunk.actions for chunk in policy.infer([PolicyInput(row) for row in rows])]
    own = policy.infer([PolicyInput({"state": recorded["state"], "image": recorded["image"]}, batch_size=len(rows))])
    np.testing.assert_allclose(singly, recorded["action"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(together, recorded["action_batch"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(own[0].actions, recorded["action_batch"], rtol=0, atol=ATOL)
