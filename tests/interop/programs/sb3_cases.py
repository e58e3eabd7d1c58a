"""Saves small policies with Stable-Baselines3 and what they predict, into tests/policies/sb3/made.

Run it in an environment of its own, after pip install stable-baselines3 sb3-contrib.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import sb3_contrib
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

FOLDER = Path(__file__).resolve().parents[2] / "policies" / "sb3" / "made"
ROWS = 5
STEPS = 6
BOX = spaces.Box(-2.0, np.array([1.5, 0.1, 3.25], np.float32), (3,), np.float32)
VECTOR = spaces.Box(-5.0, 5.0, (4,), np.float32)


class Rehearsal(gymnasium.Env[Any, Any]):
    """An environment of two spaces, whose observations are samples."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


def main() -> None:
    torch.manual_seed(7)
    small = {"net_arch": [6]}
    on_policy: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
    off_policy: dict[str, Any] = {"buffer_size": 10}
    activation = torch.nn
    save("a2c_choices", sb3.A2C, "MlpPolicy", spaces.Discrete(7), spaces.MultiDiscrete([3, 4]), small)
    save(
        "trpo_counts", sb3_contrib.TRPO, "MlpPolicy", spaces.MultiDiscrete([3, 5, 2]), BOX,
        {**small, "activation_fn": activation.ELU}, n_steps=8, batch_size=8,
    )  # fmt: skip
    matrix = spaces.Box(-9, 9, (2, 3), np.float64)
    save("ppo_squashed", sb3.PPO, "MlpPolicy", matrix, BOX, {**small, "squash_output": True}, use_sde=True, **on_policy)
    save("ppo_linear", sb3.PPO, "MlpPolicy", spaces.MultiBinary(5), BOX, {"net_arch": []}, **on_policy)
    save(
        "tqc_sde", sb3_contrib.TQC, "MlpPolicy", VECTOR, BOX,
        {**small, "n_critics": 1, "n_quantiles": 2, "activation_fn": activation.GELU}, use_sde=True, **off_policy,
    )  # fmt: skip
    save(
        "ddpg_leaky", sb3.DDPG, "MlpPolicy", VECTOR, BOX, {**small, "activation_fn": activation.LeakyReLU}, **off_policy
    )
    save("qrdqn", sb3_contrib.QRDQN, "MlpPolicy", VECTOR, spaces.Discrete(3), {**small, "n_quantiles": 4}, **off_policy)
    goals = {name: spaces.Box(-1, 1, (2,), np.float32) for name in ("observation", "achieved_goal", "desired_goal")}
    save("sac_goals", sb3.SAC, "MultiInputPolicy", spaces.Dict(goals), BOX, small, **off_policy)
    robot = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (3, 36, 36), np.uint8),
            "joints": spaces.Box(-5, 5, (4,), np.float32),
            "mode": spaces.Discrete(3),
            "pads": spaces.MultiBinary(2),
        }
    )
    extractor = {"features_extractor_kwargs": {"cnn_output_dim": 3}}
    save("ppo_robot", sb3.PPO, "MultiInputPolicy", robot, BOX, {**small, **extractor}, ["joints"], **on_policy)
    memory = spaces.Dict({"state": VECTOR, "mode": spaces.Discrete(3)})
    lstm = {"lstm_hidden_size": 5, "n_lstm_layers": 2, "shared_lstm": True, "enable_critic_lstm": False}
    save(
        "recurrent_dict", sb3_contrib.RecurrentPPO, "MultiInputLstmPolicy", memory, spaces.Discrete(3),
        {**small, **lstm, "activation_fn": activation.SiLU}, n_steps=8, batch_size=8,
    )  # fmt: skip


def save(
    name: str,
    algorithm: Any,
    policy: str,
    observation: spaces.Space[Any],
    action: spaces.Space[Any],
    kwargs: dict[str, Any],
    normalised: list[str] | None = None,
    **settings: Any,
) -> None:
    """Write NAME.zip and what it predicts; with `normalised` also NAME/vecnormalize.pkl, and the zip beside it."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    vector: Any = DummyVecEnv([lambda: Rehearsal(observation, action)])
    observation.seed(3)
    if normalised is not None:
        vector = VecNormalize(vector, norm_obs_keys=normalised, clip_obs=2.0)
        vector.reset()
        for _ in range(20):
            vector.step(np.zeros((1, *action.shape), action.dtype))
        vector.training = False
        vector.save(str(folder / "vecnormalize.pkl"))
    model = algorithm(policy, vector, policy_kwargs=dict(kwargs), device="cpu", **settings)
    enlarge(model.policy)
    model.save(folder / "model.zip")
    if normalised is not None:
        deflate(folder / "model.zip")
    np.savez_compressed(folder / "golden.npz", **golden(model, observation, vector if normalised else None))


def enlarge(policy: torch.nn.Module) -> None:
    """Make weights that actions depend on, and pictures' kernels such that a zip of them is small."""
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            weight *= 1 if ".cnn." in name else 60 if name == "action_net.weight" else 3
            if ".cnn." in name or "linear.0.weight" in name:
                weight.copy_(torch.sign(weight) * (weight.abs() > weight.abs().median()) * 0.04)
            elif name.endswith("bias"):
                weight += 0.3 * torch.randn_like(weight)


def deflate(path: Path) -> None:
    """Pack a zip that was only stored."""
    with zipfile.ZipFile(path) as stored, tempfile.TemporaryDirectory() as place:
        packed = Path(place) / "packed.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in stored.namelist():
                archive.writestr(name, stored.read(name))
        content = packed.read_bytes()
    path.write_bytes(content)


def golden(model: Any, observation: spaces.Space[Any], normalizer: VecNormalize | None) -> dict[str, np.ndarray]:
    """Observations by `obs/KEY` and actions; of an LSTM two episodes, the first of which begins anew at its step 3."""
    rows = [observation.sample() for _ in range(ROWS)]
    if "Recurrent" not in type(model).__name__:
        seen = rows if normalizer is None else [normalizer.normalize_obs(row) for row in rows]
        actions = np.stack([model.predict(row, deterministic=True)[0] for row in seen])
        return {**stacked(rows), "actions": actions}
    episodes = [[observation.sample() for _ in range(STEPS)] for _ in range(2)]
    answers = []
    for number, episode in enumerate(episodes):
        state, told = None, []
        for step, row in enumerate(episode):
            starts = np.array([step == 0 or (number == 0 and step == 3)])
            action, state = model.predict(row, state=state, episode_start=starts, deterministic=True)
            told.append(action)
        answers.append(np.stack(told))
    seen = stacked([stacked(episode, "") for episode in episodes], "episode/obs/")
    return {**seen, "episode/actions": np.stack(answers), "episode/reset_at": np.array(3)}


def stacked(rows: list[Any], prefix: str = "obs/") -> dict[str, np.ndarray]:
    """Rows of one key, or of a map, as arrays."""
    if not isinstance(rows[0], dict):
        return {f"{prefix}obs": np.stack(rows)}
    return {f"{prefix}{key}": np.stack([row[key] for row in rows]) for key in rows[0]}


if __name__ == "__main__":
    main()
