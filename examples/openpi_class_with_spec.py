"""Serve the class of openpi_class.py with a spec: what it takes and gives, in which units.

Usage:
    policyserve serve examples/openpi_class_with_spec.py:make_policy
    python examples/openpi_class_with_spec.py

With a spec the server checks each observation before the policy sees it, explains a mistake to the robot that made it,
casts numbers, fills in the prompt's default, and warms the policy up before the first robot asks.
"""

from typing import Any

import numpy as np
import tyro

import policyserve
from policyserve import ArraySpec, ImageSpec, PolicySpec, TextSpec

SPEC = PolicySpec(
    "libero",
    observation={
        "observation/image": ImageSpec(224, 224, doc="the camera in front of the table"),
        "observation/wrist_image": ImageSpec(224, 224, doc="the camera at the gripper"),
        "observation/state": ArraySpec((8,), doc="position in m, axis-angle in rad, two fingers in m"),
        "prompt": TextSpec("the task", default="wait"),
    },
    action=ArraySpec((7,), doc="change of position in m, of axis-angle in rad, then the gripper: -1 open, 1 closed"),
    horizon=50,
)


class LiberoPolicy:
    """A policy in openpi's manner; a random matrix stands for the model."""

    def __init__(self) -> None:
        self._weights = np.random.default_rng(0).normal(size=(8, 7)).astype(np.float32)

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Return a chunk of 50 actions, (50, 7)."""
        speed = 0.0 if obs["prompt"] == "wait" else obs["observation/image"].mean() / 255
        action = speed * np.tanh(obs["observation/state"] @ self._weights)
        return {"actions": np.tile(action, (50, 1))}


def make_policy() -> policyserve.Policy:
    """Load the policy and say what it takes."""
    return policyserve.as_policy(LiberoPolicy(), SPEC)


def main(url: str = "ws://localhost:8000") -> None:
    """Ask once as the spec has it, then make three mistakes."""
    image, state = np.full((224, 224, 3), 128, np.uint8), np.linspace(-1, 1, 8)
    seen = {"image": image, "wrist_image": image, "state": state}
    mistakes = [
        {**seen, "image": image.transpose(2, 0, 1)},
        {**seen, "image": image / 255},
        {"image": image, "wrist_imge": image, "state": state},
    ]
    with policyserve.Client(url) as client:
        reply = client.infer({"observation": seen, "prompt": "stack the cups"})
        print(f"{client.metadata['spec']['action']['doc']}: {reply.actions.shape}")
        for mistake in mistakes:
            try:
                client.infer({"observation": mistake})
            except policyserve.RemoteError as error:
                print(f"refused: {error}")


if __name__ == "__main__":
    tyro.cli(main)
