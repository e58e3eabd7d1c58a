"""A client for vibe_rl's protocol with nothing but msgpack, NumPy and a WebSocket library.

Usage:
    policyserve serve cartpole_ppo
    python examples/simple_client.py

It sends random observations and prints what comes back; `policyserve.Client` does the same in one line. Four numbers
are CartPole's; `--obs_shape 3` sends three, for pendulum_sac, and `--image` an image and a state, for demo_image.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import msgpack
import numpy as np
import websockets


def encode_observation(observation: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """Pack arrays as raw bytes, their dtypes and shapes beside them in `__meta__`."""
    arrays: dict[bytes, Any] = {}
    meta: dict[bytes, Any] = {}
    for key, array in observation.items():
        arrays[key.encode()] = array.tobytes()
        meta[key.encode()] = {b"dtype": array.dtype.str, b"shape": list(array.shape)}
    packed: Any = msgpack.packb({**arrays, b"__meta__": meta}, use_bin_type=True)
    return packed


def decode_action(packed: bytes) -> tuple[np.ndarray[Any, Any], dict[str, float]]:
    """Unpack the action and the server's own time in ms."""
    message = msgpack.unpackb(packed, raw=True)
    meta = message[b"__meta__"]
    layout = meta[b"action"]
    action = np.frombuffer(message[b"action"], layout[b"dtype"].decode()).reshape(layout[b"shape"])
    return action, {"latency_ms": meta.get(b"latency_ms", 0.0)}


def random_observation(obs_shape: list[int], image: bool) -> dict[str, np.ndarray[Any, Any]]:
    """What a robot would see, if it saw noise."""
    random = np.random.default_rng()
    if not image:
        return {"obs": random.standard_normal(obs_shape, dtype=np.float32)}
    state = random.standard_normal(obs_shape[0], dtype=np.float32)
    return {"state": state, "image": random.integers(0, 255, (64, 64, 3), dtype=np.uint8)}


def without_password(url: str) -> str:
    """What of ws://robot-7:KEY@host may be shown."""
    return f"ws://…@{url.rpartition('@')[2]}" if "@" in url else url


async def run(url: str, obs_shape: list[int], image: bool, n_steps: int) -> None:
    """Ask for an action n_steps times."""
    async with websockets.connect(url) as socket:
        print(f"Connected to {without_password(url)}")
        for step in range(n_steps):
            sent_at = time.perf_counter()
            await socket.send(encode_observation(random_observation(obs_shape, image)))
            message = await socket.recv()
            assert isinstance(message, bytes), f"the server speaks another protocol: {message}"
            action, timing = decode_action(message)
            rtt_ms = (time.perf_counter() - sent_at) * 1e3
            shown = np.array2string(action, precision=4, max_line_width=1000)
            print(f"step {step:3d} | action={shown} | server={timing['latency_ms']:.2f}ms | rtt={rtt_ms:.2f}ms")
    print("Done.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Send random observations to a policy server.")
    parser.add_argument("--url", default="ws://localhost:8000")
    parser.add_argument("--obs_shape", type=int, nargs="+", default=[4], help="sizes; with --image the state's length")
    parser.add_argument("--image", action="store_true", help="send an image and a state")
    parser.add_argument("--n_steps", type=int, default=10)
    flags = parser.parse_args()
    try:
        asyncio.run(run(flags.url, flags.obs_shape, flags.image, flags.n_steps))
    except (websockets.InvalidURI, ValueError):
        raise SystemExit("--url: expected ws://host:port") from None  # what else it is may be a key
    except OSError as error:
        raise SystemExit(f"cannot connect to {without_password(flags.url)}: {error}") from None
    except websockets.ConnectionClosed as error:
        raise SystemExit(f"the server closed the connection: {error}") from None


if __name__ == "__main__":
    main()
