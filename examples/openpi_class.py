"""Serve a class as openpi has them, unchanged, to a robot whose program is unchanged too.

Usage:
    policyserve serve examples/openpi_class.py:LiberoPolicy
    python examples/openpi_class.py

Any class whose infer() takes a dict and returns one with `actions` will do. The class is called when the server loads
the policy. Robots with openpi-client installed import from `openpi_client` what is imported from policyserve here.
"""

from typing import Any

import numpy as np
import tyro

from policyserve.compat.openpi import ActionChunkBroker, WebsocketClientPolicy


class LiberoPolicy:
    """A policy in openpi's manner; a random matrix stands for the model."""

    def __init__(self) -> None:
        self.metadata = {"robot": "panda"}  # told to each robot that connects
        self._weights = np.random.default_rng(0).normal(size=(8, 7))  # a checkpoint is loaded here

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Return a chunk of 50 actions, (50, 7)."""
        speed = obs["observation/image"].mean() / 255 if obs["prompt"] else 0.0
        action = speed * np.tanh(obs["observation/state"] @ self._weights)
        return {"actions": np.tile(action, (50, 1))}


def main(url: str = "ws://localhost:8000") -> None:
    """Play ten actions of each chunk, then ask for the next, as openpi's robots do."""
    server = WebsocketClientPolicy(url)
    robot = ActionChunkBroker(server, action_horizon=10)
    observation = {
        "observation/image": np.full((224, 224, 3), 128, np.uint8),
        "observation/wrist_image": np.zeros((224, 224, 3), np.uint8),
        "observation/state": np.linspace(-1, 1, 8),
        "prompt": "put the bowl on the plate",
    }
    print(f"the server drives a {server.get_server_metadata()['robot']}")
    for step in range(20):
        action = robot.infer(observation)["actions"]
        if step % 10 == 0:
            print(f"step {step}: action {np.round(action, 2)}")


if __name__ == "__main__":
    tyro.cli(main)
