"""strands-robots 0.5.2's client of Cosmos 3: check every answer. Usage: PORT COUNT SALT, the wheel's folder beside it

The wheel is unpacked, as for GR00T N1.6.
"""

import sys
import types

import numpy as np

port, count, salt = (int(argument) for argument in sys.argv[1:4])
folder = sys.argv[4]
sys.path.insert(0, folder)
for name in ("strands_robots", "strands_robots.policies", "strands_robots.policies.cosmos3"):
    package = types.ModuleType(name)  # empty: what the packages import is not needed
    package.__path__ = [f"{folder}/{name.replace('.', '/')}"]
    sys.modules[name] = package
from strands_robots.policies.cosmos3.client import Cosmos3WebsocketClient  # noqa: E402 - once its packages are there

client = Cosmos3WebsocketClient("127.0.0.1", f"{port}/cosmos", read_timeout=60.0)
for number in range(count):
    state = np.array([salt, number, 0.5], np.float32)
    image = np.full((24, 32, 3), number % 256, np.uint8)
    answer = client.infer({"observation/image": image, "observation/state": state, "prompt": f"step {number}"})
    assert np.array_equal(answer["action"], np.stack([state, state * 2])), (number, answer)
client.reset()
print(f"{count} right answers")
