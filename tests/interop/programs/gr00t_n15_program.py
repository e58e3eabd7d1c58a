"""strands-robots 0.3.8's client of GR00T N1.5, loaded by its path: check every answer. Usage: PORT COUNT SALT"""

import importlib.util
import sys
from importlib.metadata import distribution

import numpy as np

port, count, salt = (int(argument) for argument in sys.argv[1:])
# By its path, since the package around it imports torch.
path = distribution("strands-robots").locate_file("strands_robots/policies/groot/client.py")
found = importlib.util.spec_from_file_location("client", path)
module = importlib.util.module_from_spec(found)
found.loader.exec_module(module)
client = module.GR00TClient("127.0.0.1", port)
assert client.ping()
for number in range(count):
    value = salt * 1000 + number
    observation = {
        "video.webcam": np.full((1, 32, 32, 3), number % 256, np.uint8),
        "state.left_arm": np.full((1, 7), value, np.float64),
        "state.waist": np.zeros((1, 1)),
        "annotation.human.task_description": ["pick up the cube"],
    }
    answer = client.get_action(observation)
    assert set(answer) >= {f"action.{name}" for name in ("left_arm", "right_arm", "left_hand", "right_hand")}, answer
    assert answer["action.left_arm"].shape == (4, 7), answer["action.left_arm"].shape
    assert answer["action.left_hand"].shape == (4,)
    assert (answer["action.left_arm"] == value).all(), (number, answer)
refusal = ""
try:
    client.get_action({"state.left_arm": np.zeros((2, 2, 2, 2))})
except RuntimeError as error:
    refusal = str(error)
assert "data/state.left_arm" in refusal, refusal
print(f"{count} right answers")
