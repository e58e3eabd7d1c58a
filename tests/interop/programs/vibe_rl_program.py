"""The founding document's own client code, unmodified: check every answer. Usage: PORT COUNT SALT DOCUMENT"""

import asyncio
import re
import sys
from pathlib import Path

import numpy as np
import websockets

port, count, salt = (int(argument) for argument in sys.argv[1:4])
blocks = re.findall(r"```python\n(.*?)```", Path(sys.argv[4]).read_text(), re.DOTALL)
code = {}
for name in ("encode_observation", "decode_action"):
    (block,) = [block for block in blocks if f"def {name}(" in block]
    exec("import msgpack\nimport numpy as np\n" + block, code)


async def ask() -> None:
    async with websockets.connect(f"ws://127.0.0.1:{port}") as socket:
        for number in range(count):
            state = np.array([salt, number, 0.5], np.float32)
            await socket.send(code["encode_observation"]({"obs": state}))
            action, meta = code["decode_action"](await socket.recv())
            assert np.array_equal(action, np.stack([state, state * 2])), (number, action)
            assert meta["latency_ms"] > 0


asyncio.run(ask())
print(f"{count} right answers")
