"""Serve a vision-language-action model in torch that answers several simulators with one call.

Usage:
    policyserve serve examples/torch_vla.py:make_policy
    python examples/torch_vla.py

Needs torch where the server runs. Observations that are there at the same time become rows of one batch: arrays with
one more axis in front, prompts in a list. A simulator that is alone does not wait for others.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tyro

from policyserve import ArraySpec, Client, ImageSpec, PolicySpec, StackedPolicy, TextSpec

HORIZON = 10
TASKS = [f"{verb} the {thing}" for verb in ("open", "close") for thing in ("drawer", "door", "box", "oven")]
SPEC = PolicySpec(
    "tiny_vla",
    observation={
        "image": ImageSpec(128, 128, doc="the camera in front of the table"),
        "state": ArraySpec((8,), doc="seven joint angles in rad, the gripper's width in m"),
        "prompt": TextSpec("the task"),
    },
    action=ArraySpec((8,), doc="seven joint speeds in rad/s, the gripper's in m/s"),
    horizon=HORIZON,
    max_batch=8,
    max_client_batch=64,
)


def make_policy() -> StackedPolicy:
    """Make the model. torch is imported here and not above, so that a simulator needs none."""
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    eye = nn.Sequential(nn.Conv2d(3, 16, 16, stride=16), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64)).to(device)
    reader = nn.EmbeddingBag(256, 64).to(device)
    head = nn.Linear(64 + 64 + 8, HORIZON * 8).to(device)  # load_state_dict() for all three belongs here

    @torch.inference_mode()
    def forward(rows: Mapping[str, Any]):
        """image: (N, 128, 128, 3) uint8, state: (N, 8) float32, prompt: N texts. Returns (N, 10, 8) float32."""
        images = torch.from_numpy(rows["image"]).to(device).permute(0, 3, 1, 2) / 255
        state = torch.from_numpy(rows["state"]).to(device)
        letters = [list(prompt.encode()[:64].ljust(64)) for prompt in rows["prompt"]]
        features = torch.cat((eye(images), reader(torch.tensor(letters, device=device)), state), dim=1)  # (N, 136)
        return head(features).unflatten(1, (HORIZON, 8)).cpu().numpy()

    return StackedPolicy(forward, SPEC)


def simulate(url: str, task: str):
    """Run one simulator, in a thread of its own, for twenty chunks; returns the last."""
    seen = {"image": np.zeros((128, 128, 3), np.uint8), "state": np.zeros(8), "prompt": task}
    with Client(url) as client:
        return [client.infer(seen).actions for _ in range(20)][-1]


def main(url: str = "ws://localhost:8000") -> None:
    """Run a simulator for each task, then one that has all its robots in one batch."""
    with ThreadPoolExecutor(len(TASKS)) as pool:
        chunks = list(pool.map(lambda task: simulate(url, task), TASKS))
    differing = len({chunk.tobytes() for chunk in chunks})
    print(f"{len(TASKS)} simulators with a task each got {differing} different chunks of {chunks[0].shape}")
    robots = {"image": np.zeros((32, 128, 128, 3), np.uint8), "state": np.zeros((32, 8)), "prompt": TASKS[0]}
    with Client(url) as client:
        print(f"a simulator of 32 robots gets {client.infer(robots).actions.shape} for one request")


if __name__ == "__main__":
    tyro.cli(main)
