"""A stand-in for openpi's or Wall-X's server: plain `websockets`, the policy called in the handler.

    python benchmarks/rivals/metadata_first.py [--family openpi|wall_x] [--policy-ms 0]

As theirs: no compression, no size limit, the library's defaults otherwise; metadata first, then a request and a reply
at a time, `server_timing` in each reply. The policy answers zeros (32, 7) after --policy-ms of sleep. Wall-X's differs
in the spelling of arrays and in the key of the actions.
"""

from __future__ import annotations

import argparse
import asyncio
import http
import time
from typing import Any

import msgpack
import numpy as np
from websockets.asyncio.server import ServerConnection, serve


def pack_openpi(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    return value


def unpack_openpi(fields: dict[Any, Any]) -> Any:
    if b"__ndarray__" in fields:
        return np.ndarray(buffer=fields[b"data"], dtype=np.dtype(fields[b"dtype"]), shape=fields[b"shape"])
    return fields


def pack_wall_x(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = value.data if value.flags["C_CONTIGUOUS"] else value.tobytes()
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": data}
    return value


def unpack_wall_x(fields: dict[Any, Any]) -> Any:
    if b"nd" in fields:
        return np.ndarray(buffer=fields[b"data"], dtype=np.dtype(fields[b"type"]), shape=fields[b"shape"])
    return fields


FAMILIES = {"openpi": (pack_openpi, unpack_openpi, "actions"), "wall_x": (pack_wall_x, unpack_wall_x, "action")}


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", choices=FAMILIES, default="openpi")
    parser.add_argument("--policy-ms", type=float, default=0.0)
    arguments = parser.parse_args()
    write, read, key = FAMILIES[arguments.family]
    metadata = {"action_dim": 7, "pred_horizon": 32, "predict_mode": "fast"} if arguments.family == "wall_x" else {}
    actions = np.zeros((32, 7), np.float32)

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        assert isinstance(observation, dict)
        if arguments.policy_ms:
            time.sleep(arguments.policy_ms / 1e3)
        return {key: actions}

    async def handle(websocket: ServerConnection) -> None:
        packer = msgpack.Packer(default=write)
        await websocket.send(packer.pack(metadata))
        previous_ms: float | None = None
        while True:
            started_at = time.monotonic()
            observation = msgpack.unpackb(await websocket.recv(), object_hook=read)
            infer_from = time.monotonic()
            reply = infer(observation)
            reply["server_timing"] = {"infer_ms": (time.monotonic() - infer_from) * 1e3}
            if previous_ms is not None:
                reply["server_timing"]["prev_total_ms"] = previous_ms
            await websocket.send(packer.pack(reply))
            previous_ms = (time.monotonic() - started_at) * 1e3

    def check_health(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None

    async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None, process_request=check_health) as server:
        print(f"url ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}\nready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
