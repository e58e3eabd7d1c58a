"""Several policies on one port, and a comparison of two of them that does not tell a robot which one answers.

Usage:
    mkdir -p runs
    echo 'routes."/arm" = {split = {v1 = 0.5, v2 = 0.5}, seed = 3}' > runs/arm.toml
    policyserve serve v1=examples/several_policies.py:v1 v2=examples/several_policies.py:v2 --config runs/arm.toml
    python examples/several_policies.py

A client names its policy in the URL. Behind /arm each new session is drawn to one of the two, with the same seed to the
same one again. Its greeting does not tell which; recordings do.
"""

import json
import urllib.request

import numpy as np
import tyro

from policyserve import ArraySpec, Client, FunctionPolicy, PolicySpec


def version(speed: float) -> FunctionPolicy:
    """A policy that moves towards 0, so fast."""
    spec = PolicySpec("arm", {"x": ArraySpec((1,), doc="m")}, ArraySpec((1,), doc="m/s"), metadata={"speed": speed})
    return FunctionPolicy(lambda observation: np.float32(-speed) * observation["x"], spec)


v1, v2 = version(1.0), version(2.0)


def drive(url: str) -> tuple[float, bool]:
    """One session: where a robot is after ten steps from 1 m, and whether the greeting told its policy's speed."""
    x = np.ones(1, np.float32)
    with Client(url) as client:
        for _ in range(10):
            x = x + 0.1 * client.infer({"x": x}).actions
        return float(x[0]), "speed" in client.metadata


def main(url: str = "ws://localhost:8000") -> None:
    """Ask each by its name, then ten times whichever is drawn."""
    for name in ("v1", "v2"):
        print(f"{name}: {drive(f'{url}/{name}')[0]:.2f} m left")
    sessions = [drive(f"{url}/arm") for _ in range(10)]
    print("drawn:", " ".join(f"{left:.2f}" for left, _ in sessions))
    print("told which:", any(told for _, told in sessions))
    with urllib.request.urlopen(f"{url.replace('ws', 'http', 1)}/policies") as page:
        policies = json.load(page)["policies"]
    print("answers:", ", ".join(f"{one['name']} {one['answers']}" for one in policies))


if __name__ == "__main__":
    tyro.cli(main)
