"""Serve to programs of the same machine over a Unix socket: no port, nobody but this user, and less time.

Usage:
    policyserve serve demo_image --uds policy.sock
    python examples/unix_socket.py --socket policy.sock

The socket is a file that only its owner may use. Large arrays are not copied on their way through it.
"""

import time
from pathlib import Path

import numpy as np
import tyro

import policyserve


def main(socket: Path, count: int = 200) -> None:
    """Send pictures and say how long an answer takes."""
    observation = {"image": np.zeros((64, 64, 3), np.uint8), "state": np.zeros(8, np.float32)}
    times_ms: list[float] = []
    with policyserve.Client(f"ws+unix://{socket.resolve()}") as client:
        for _ in range(count):
            asked_at = time.perf_counter()
            client.infer(observation)
            times_ms.append((time.perf_counter() - asked_at) * 1e3)
    print(f"{count} answers, half of them within {np.median(times_ms):.2f} ms")


if __name__ == "__main__":
    tyro.cli(main)
