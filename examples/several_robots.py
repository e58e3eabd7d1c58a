"""Several robots and one server: a client for each robot, and a key for each, by which the log tells them apart.

Usage:
    umask 077; mkdir -p runs
    echo "left: $(openssl rand -hex 24)" > runs/keys
    echo "right: $(openssl rand -hex 24)" >> runs/keys
    policyserve serve cartpole_ppo --api-key-file runs/keys
    python examples/several_robots.py --keys runs/keys

Each robot has a session of its own. What they ask at the same time is answered by one call of the policy. Here they are
threads of one program that knows all keys; a real robot knows its own, from a file or an environment variable.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tyro

from policyserve import Client, PolicyserveError, Reply

STEPS = 50


def ask(client: Client, angle: float) -> Reply:
    """Ask until there is an answer. An error that asking again cannot mend is raised."""
    while True:
        try:
            return client.infer({"obs": np.array([0.0, 0.0, angle, 0.0])})
        except PolicyserveError as error:
            if not error.retryable:
                raise
            time.sleep(0.02)


def drive(name: str, key: str, url: str) -> str:
    """Drive one robot, in a thread of its own: a client is used by one thread at a time."""
    with Client(url, api_key=key) as client:
        actions = [int(ask(client, angle).actions) for angle in np.linspace(-0.1, 0.1, STEPS)]
    return f"{name}: {len(actions)} answers, pushed right {sum(actions)} times"


def main(keys: Path, url: str = "ws://localhost:8000") -> None:
    """Drive a robot for each line of a file of keys, then ask without a key."""
    robots = dict(line.split(": ") for line in keys.read_text().splitlines())
    with ThreadPoolExecutor(len(robots)) as pool:
        driven = [pool.submit(drive, name, key, url) for name, key in robots.items()]
    print("\n".join(one.result() for one in driven))
    try:
        Client(url).connect()
    except PolicyserveError as error:
        print(f"without a key: {error}")


if __name__ == "__main__":
    tyro.cli(main)
