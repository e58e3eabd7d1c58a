"""A stand-in for vibe_rl's server: plain `websockets` on its defaults, the jitted JAX policy called in the handler.

    python benchmarks/rivals/vibe_rl.py [--policy cartpole|equinox|zeros]

cartpole: the demo's PPO network, compiled by JAX, one observation per call: bytes to NumPy to JAX to NumPy to bytes, as
the original's document has it. equinox: the same network as the Equinox module that its checkpoints hold. zeros:
(32, 7) zeros, for any observation. The defaults negotiate permessage-deflate with a client that offers it, and take
messages of up to 1 MiB; here the limit is lifted, so that camera images pass.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np
from websockets.asyncio.server import ServerConnection, serve

Act = Callable[[Mapping[str, np.ndarray[Any, Any]]], np.ndarray[Any, Any]]


def cartpole() -> Act:
    """The demo's network as one function compiled by JAX, its weights constants in it."""
    import jax

    layers = _layers()

    @jax.jit
    def act(observation: Any) -> Any:
        for depth, layer in enumerate(layers):
            observation = layer.weight @ (jax.numpy.tanh(observation) if depth else observation) + layer.bias
        return observation.argmax(axis=-1)

    return _warm(lambda observation: np.asarray(act(jax.numpy.asarray(observation["obs"]))))


def equinox() -> Act:
    """The demo's network as an Equinox module and an argument of the compiled function."""
    import equinox
    import jax

    layers = _layers()
    module = equinox.nn.MLP(4, 2, 64, 2, activation=jax.numpy.tanh, key=jax.random.key(0))
    weights = [jax.numpy.asarray(array) for layer in layers for array in (layer.weight, layer.bias)]
    module = equinox.tree_at(
        lambda mlp: [a for layer in mlp.layers for a in (layer.weight, layer.bias)], module, weights
    )

    @equinox.filter_jit
    def act(module: Any, observation: Any) -> Any:
        return module(observation).argmax(axis=-1)

    return _warm(lambda observation: np.asarray(act(module, jax.numpy.asarray(observation["obs"]))))


def _layers() -> Any:
    from policyserve.policies.vibe_rl import demo_directory
    from policyserve.policies.vibe_rl.checkpoint import find_checkpoint, read_network

    checkpoint = find_checkpoint(demo_directory("cartpole_ppo") / "checkpoints", None)
    return read_network(checkpoint, (4, 64, 64, 2), "PPO")


def _warm(infer: Act) -> Act:
    infer({"obs": np.zeros(4, np.float32)})
    return infer


def zeros() -> Act:
    """(32, 7) zeros."""
    actions = np.zeros((32, 7), np.float32)
    return lambda _observation: actions


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", choices=("cartpole", "equinox", "zeros"), default="cartpole")
    infer = {"cartpole": cartpole, "equinox": equinox, "zeros": zeros}[parser.parse_args().policy]()

    async def handle(websocket: ServerConnection) -> None:
        async for message in websocket:
            started_at = time.perf_counter()
            fields = msgpack.unpackb(message)
            meta = fields.pop(b"__meta__")
            observation = {
                key.decode(): np.frombuffer(data, meta[key][b"dtype"]).reshape(meta[key][b"shape"])
                for key, data in fields.items()
            }
            action = infer(observation)
            layout = {b"dtype": action.dtype.str, b"shape": list(action.shape)}
            latency_ms = (time.perf_counter() - started_at) * 1e3
            reply = {b"action": action.tobytes(), b"__meta__": {b"action": layout, b"latency_ms": latency_ms}}
            await websocket.send(bytes(msgpack.packb(reply) or b""))

    async with serve(handle, "127.0.0.1", 0, max_size=None) as server:
        print(f"url ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}\nready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
