"""An original client, unmodified, which asks what it is told. Usage: DIALECT PORT DOCUMENT

Knows nothing of policyserve. Each line of stdin is an observation's numbers, [who, number]; each line of stdout what
became of it: {"answer": [...]}, {"refused": "..."} or {"lost": "..."}. The first line is {} once it is connected.
"""

import asyncio
import json
import re
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed

Ask = Callable[[dict[str, Any]], Any]


def openpi(port: int, document: str) -> Ask:
    """PyPI's openpi-client."""
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    client = WebsocketClientPolicy("127.0.0.1", port)
    return lambda obs: client.infer(obs)["actions"]


def wall_x(port: int, document: str) -> Ask:
    """PyPI's msgpack-numpy over websockets, called as Wall-X's client calls them; itself it is no package."""
    import msgpack
    import msgpack_numpy
    import websockets

    msgpack_numpy.patch()
    run = _loop_in_background()

    async def connect() -> Any:
        socket = await websockets.connect(
            f"ws://127.0.0.1:{port}/wall_x", ping_interval=None, ping_timeout=None, max_size=None
        )
        msgpack.unpackb(await socket.recv())
        return socket

    async def predict(obs: dict[str, Any]) -> Any:
        await socket.send(msgpack.packb(obs))
        response = await socket.recv()
        if isinstance(response, str):
            raise RuntimeError(response)
        return msgpack.unpackb(response)["action"]

    socket = run(connect())
    return lambda obs: run(predict(obs))


def vibe_rl(port: int, document: str) -> Ask:
    """The founding document's own code, with the loop that it shows."""
    import websockets

    code: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", Path(document).read_text(encoding="utf-8"), re.DOTALL):
        if "def encode_observation(" in block or "def decode_action(" in block:
            exec("import msgpack\nimport numpy as np\n" + block, code)
    run = _loop_in_background()

    async def connect() -> Any:
        return await websockets.connect(f"ws://127.0.0.1:{port}/vibe_rl")

    async def infer(obs: dict[str, Any]) -> Any:
        await socket.send(code["encode_observation"](obs))
        action, _ = code["decode_action"](await socket.recv())
        return action

    socket = run(connect())
    return lambda obs: run(infer(obs))


def _loop_in_background() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """What runs a coroutine in an event loop that answers pings meanwhile."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()


def _outcome(ask: Ask, numbers: list[float]) -> dict[str, Any]:
    try:
        return {"answer": np.asarray(ask({"obs": np.array(numbers, np.float64)})).reshape(-1).tolist()}
    except (ConnectionClosed, OSError) as error:
        return {"lost": str(error)}
    except RuntimeError as error:
        return {"refused": str(error)}


def _tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def main(dialect: str, port: str, document: str) -> None:
    try:
        ask = {"openpi": openpi, "wall_x": wall_x, "vibe_rl": vibe_rl}[dialect](int(port), document)
    except (ConnectionClosed, OSError) as error:
        return _tell({"lost": str(error)})
    _tell({})
    for line in sys.stdin:
        _tell(_outcome(ask, json.loads(line)))
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
