"""The founding document's own client code, unmodified: actions for arrays, as JSON. Usage: PORT DOCUMENT ARRAYS.npy"""

import asyncio
import json
import re
import sys
from pathlib import Path

import numpy as np
import websockets

blocks = re.findall(r"```python\n(.*?)```", Path(sys.argv[2]).read_text(), re.DOTALL)
code = {}
for name in ("encode_observation", "decode_action"):
    (block,) = [block for block in blocks if f"def {name}(" in block]
    exec("import msgpack\nimport numpy as np\n" + block, code)


async def ask() -> list:
    async with websockets.connect(f"ws://127.0.0.1:{sys.argv[1]}") as socket:
        actions = []
        for array in np.load(sys.argv[3]):
            await socket.send(code["encode_observation"]({"obs": array}))
            actions.append(code["decode_action"](await socket.recv())[0].tolist())
        return actions


print(json.dumps(asyncio.run(ask())))
