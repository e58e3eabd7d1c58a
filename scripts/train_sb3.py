#!/usr/bin/env python3
"""Train PPO on CartPole-v1 with Stable-Baselines3 and write its zip, and what it scores, for the tests of `sb3:`.

    pip install stable-baselines3
    python scripts/train_sb3.py

takes some three minutes of a processor, in an environment of Stable-Baselines3's; policyserve is not needed there.
Then, where it is,

    policyserve eval sb3:tests/policies/sb3/cartpole/model.zip --env CartPole-v1 --json eval.json
    python scripts/train_sb3.py --served eval.json

puts both into returns.json. Episode i begins from seed i on either side, so that the returns are the same, one by one.
It stops early, before the policy is perfect: returns that differ from each other tell more than twenty times 500.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "policies" / "sb3" / "cartpole"
ENV_ID = "CartPole-v1"
STEPS = 24_576
EPISODES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--served", type=Path, help="what policyserve eval --json wrote")
    served: Path | None = parser.parse_args().served
    if served is None:
        train()
    else:
        add("policyserve", served_returns(json.loads(served.read_text())))
    print((FOLDER / "returns.json").read_text())


def train() -> None:
    """Write model.zip and what Stable-Baselines3's evaluate_policy() says of it."""
    import stable_baselines3 as sb3
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    model: Any = sb3.PPO("MlpPolicy", make_vec_env(ENV_ID, 8, seed=1), n_steps=128, seed=1, device="cpu")
    model.learn(STEPS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    model.save(FOLDER / "model.zip", exclude=["policy.optimizer"])  # what only more training needs
    loaded = sb3.PPO.load(FOLDER / "model.zip", device="cpu")
    environment = make_vec_env(ENV_ID, 1)
    returns: list[float] = []
    for seed in range(EPISODES):
        environment.seed(seed)
        rewards: Any = evaluate_policy(loaded, environment, 1, deterministic=True, return_episode_rewards=True)[0]
        returns.append(float(rewards[0]))
    add("stable_baselines3", returns)


def served_returns(figures: dict[str, Any]) -> list[float]:
    """The returns of `policyserve eval`, in the order of their seeds."""
    return [float(one["return"]) for one in sorted(figures["episodes"], key=lambda one: one["seed"])]


def add(name: str, returns: list[float]) -> None:
    """Put one side's figures into returns.json."""
    file = FOLDER / "returns.json"
    figures = json.loads(file.read_text()) if file.is_file() else {}
    figures |= {
        "env": ENV_ID,
        "seeds": [0, EPISODES - 1],
        name: {"mean": sum(returns) / len(returns), "returns": returns},
    }
    file.write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
