"""Serve a policy that remembers each session's past, and tells more than its actions.

Usage:
    policyserve serve examples/stateful.py:Approach
    python examples/stateful.py

What an answer carries as `state` comes back with the next input of the same session, and never with another's; it
stays in the server. A session begins without a state: when its client connects, and when it calls reset(). `extras`
go to the client, which finds them in its reply by their names.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tyro

from policyserve import ActionChunk, ArraySpec, Client, PolicyInput, PolicySpec


class Memory(NamedTuple):
    """What is remembered of one session: how often it asked, and where its gripper was sent."""

    steps: int
    target: Any


class Approach:
    """Sends a gripper half of the way to its goal with each step."""

    spec = PolicySpec(
        "approach",
        observation={"goal": ArraySpec((2,), doc="where the gripper shall end, x and y in m")},
        action=ArraySpec((2,), doc="where the gripper shall be next, x and y in m"),
        max_batch=16,
    )

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        """Answer each input of a batch, which are of as many sessions."""
        return [self._answer(one.observation["goal"], one.state or Memory(0, np.zeros(2))) for one in batch]

    def _answer(self, goal: Any, memory: Memory) -> ActionChunk:
        now = Memory(memory.steps + 1, (memory.target + goal) / 2)
        left_m = float(np.linalg.norm(goal - now.target))
        return ActionChunk(now.target, state=now, extras={"steps": now.steps, "left_m": left_m})

    def close(self) -> None:
        """Nothing to release."""


def step(name: str, client: Client) -> None:
    reply = client.infer({"goal": np.array([1.0, 0.0])})
    print(f"{name}: step {reply['steps']} to {reply.actions}, {reply['left_m']:.3f} m left")


def main(url: str = "ws://localhost:8000") -> None:
    """Let two robots approach the same goal, and one of them begin again."""
    with Client(url) as one, Client(url) as other:
        step("one", one)
        step("one", one)
        step("other", other)
        one.reset()
        step("one after its reset", one)


if __name__ == "__main__":
    tyro.cli(main)
