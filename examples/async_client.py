"""A robot with an event loop: it plays one chunk of actions while the server works on the next.

Usage:
    policyserve serve examples/async_client.py:plan
    python examples/async_client.py

An AsyncClient takes what a Client takes, and answers one call at a time. Other tasks of the robot's program run on
while it waits: here the motors, which play ten actions at 50 Hz.
"""

import asyncio
import time
from typing import Any

import numpy as np
import tyro

import policyserve

PERIOD_S = 1 / 50


def plan(observation: policyserve.Observation):
    """angle: where the joint will be, in rad. Thinks for 0.1 s and returns its next ten angles, (10,)."""
    time.sleep(0.1)
    return observation["angle"] + 0.01 * np.arange(1, 11)


async def play(actions: Any) -> None:
    """Send each action to the motors, a period apart."""
    for _angle in actions:
        await asyncio.sleep(PERIOD_S)  # motors.move_to(angle) belongs here


async def drive(url: str, chunks: int) -> None:
    """Ask for what follows a chunk while that chunk is played."""
    async with policyserve.AsyncClient(url) as client:
        reply = await client.infer({"angle": 0.0})
        for number in range(1, chunks + 1):
            actions = reply.actions
            reply, _ = await asyncio.gather(client.infer({"angle": actions[-1]}), play(actions))
            took_ms = reply.timing["infer_ms"]
            print(f"chunk {number} moved the joint to {actions[-1]:.2f} rad; the next took {took_ms:.0f} ms meanwhile")


def main(url: str = "ws://localhost:8000", chunks: int = 4) -> None:
    """Play some chunks without a pause between them."""
    asyncio.run(drive(url, chunks))


if __name__ == "__main__":
    tyro.cli(main)
