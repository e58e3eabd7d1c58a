"""Serve a function of one observation.

Usage:
    policyserve serve examples/function.py:brake
    python examples/function.py

The first command serves until Ctrl-C, the second is a robot in another terminal. The function gets what a robot sends,
a map of arrays and texts, and returns the action. The server checks that the action is made of finite numbers.
"""

import numpy as np
import tyro

import policyserve


def brake(observation: policyserve.Observation):
    """state: x, y in m, then their velocities in m/s. Returns an acceleration for each, in m/s²."""
    return np.clip(-observation["state"][2:], -1.0, 1.0)


def main(url: str = "ws://localhost:8000") -> None:
    """Let a point mass come to rest."""
    state = np.array([0.0, 0.0, 3.0, -0.5])
    with policyserve.Client(url) as client:
        for second in range(1, 5):
            acceleration = client.infer({"state": state}).actions
            state[2:] += acceleration
            state[:2] += state[2:]
            print(f"after {second} s: acceleration {acceleration} m/s², velocity {state[2:]} m/s")


if __name__ == "__main__":
    tyro.cli(main)
