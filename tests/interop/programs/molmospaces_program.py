"""AI2's molmo-spaces, unmodified: its simulator's client and its DreamZero client. Usage: PORT COUNT SALT

Both files are loaded by path: the package around them wants a simulator.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np

port, count, salt = (int(argument) for argument in sys.argv[1:])


class Anything:
    """A base class, and whatever else is imported from a module that is not here."""

    def __init__(self, *args):
        pass


def empty(name):
    module = types.ModuleType(name)
    module.__getattr__ = lambda _: Anything
    sys.modules[name] = module


for missing in ("cv2", "molmo_spaces", "molmo_spaces.configs.abstract_exp_config", "molmo_spaces.policy.base_policy"):
    empty(missing)
empty("molmo_spaces.policy.learned_policy.utils")
HOME = next(Path(place) for place in sys.path if (Path(place) / "molmo_spaces").is_dir()) / "molmo_spaces"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, HOME / "policy" / "learned_policy" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = loaded("websocket_policy").WebsocketPolicy(None, "toy", "127.0.0.1", port)
client.reset()
assert client.get_server_metadata()["model_name"]
for number in range(count):
    state, image = np.array([salt, number // 2, 0.5]), np.full((24, 32, 3), number % 256, np.uint8)
    answer = client.infer({"wrist_camera": image, "qpos": {"arm": state}, "task": "pick up the mug"})
    action = client.model_output_to_action(answer)
    whole = np.concatenate([action["arm"], action["gripper"]])
    assert np.array_equal(whole, state * (1 + number % 2)), (number, answer)
client.close()
dreamzero = loaded("dreamzero_policy").DreamZeroWebsocketClient("127.0.0.1", port)
for number in range(count):
    state = np.array([salt, number, 0.5])
    answer = dreamzero.infer({"observation/state": state, "prompt": "pick up the mug", "session_id": "abc"})
    assert np.array_equal(answer["actions"], np.stack([state, state * 2])), (number, answer)
assert dreamzero.reset({"session_id": "abc"}) == "reset successful"
print(f"{count} right answers")
