"""strands-robots 0.5.2's client of GR00T N1.6: check every answer. Usage: PORT COUNT SALT, the wheel's folder beside it

The wheel wants Python 3.12 and runs on older ones, too, so that it is unpacked and not installed.
"""

import sys
import types

import numpy as np

port, count, salt = (int(argument) for argument in sys.argv[1:4])
folder = sys.argv[4]
sys.path.insert(0, folder)
for name in ("strands_robots", "strands_robots.policies", "strands_robots.policies.groot"):
    package = types.ModuleType(name)  # empty: what the packages import is not needed
    package.__path__ = [f"{folder}/{name.replace('.', '/')}"]
    sys.modules[name] = package
from strands_robots.policies.groot.client import Gr00tInferenceClient  # noqa: E402 - once its packages are there

client = Gr00tInferenceClient("127.0.0.1", port, timeout_ms=60_000)
assert client.ping()
config = client.call_endpoint("get_modality_config")
assert config["action"].modality_keys[:4] == ["left_arm", "right_arm", "left_hand", "right_hand"], config
assert config["action"].delta_indices == [0, 1, 2, 3], config
for number in range(count):
    value = salt * 1000 + number
    observation = {
        "video": {"front": np.full((1, 1, 32, 32, 3), number % 256, np.uint8)},
        "state": {"left_arm": np.full((1, 1, 7), value, np.float32), "waist": np.zeros((1, 1, 1), np.float32)},
        "language": {"annotation.human.task_description": [["pick"]]},
    }
    answer = client.get_action(observation)
    assert answer["left_arm"].shape == (1, 4, 7), answer["left_arm"].shape
    assert answer["left_arm"].dtype == np.float32
    assert (answer["left_arm"] == value).all(), (number, answer)
    if number % 50 == 0:
        assert client.call_endpoint("reset", {"options": None}) == {}
print(f"{count} right answers")
