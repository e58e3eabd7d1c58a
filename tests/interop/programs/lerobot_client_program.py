"""LeRobot's RobotClient, unmodified, with a robot that is none: it sees one golden observation all the time.

Arguments: the server's address, the policy's name, a golden file of an ACT with two cameras, which of its samples. Says
how many actions arrived and were right. Runs where lerobot 0.4.4 is installed.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import threading
import types
from itertools import groupby
from typing import Any, ClassVar

import numpy as np

ROWS, MOST_S, TOLERANCE = 25, 300, 1e-4


class NoTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for torchvision, which LeRobot imports and does not use here: no version of it goes with every torch."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        class Anything(types.ModuleType):
            def __getattr__(self, name: str) -> Any:
                if name.startswith("__"):
                    raise AttributeError(name)
                return type(name, (), {})

        return Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


sys.meta_path.insert(0, NoTorchvision())
robot_client = importlib.import_module("lerobot.async_inference.robot_client")
configs = importlib.import_module("lerobot.async_inference.configs")

address, policy, golden, sample = sys.argv[1], sys.argv[2], np.load(sys.argv[3]), int(sys.argv[4])
state = golden["chunk/obs/observation.state"][sample, 0]
top, wrist = (golden[f"chunk/obs/observation.images.{name}"][sample, 0] for name in ("top", "wrist"))
chunk = golden["chunk/actions"][sample]
joints = [f"joint_{number}.pos" for number in range(len(state))]


def picture(image: np.ndarray) -> np.ndarray:
    """As a camera gives it, (H, W, 3) uint8."""
    return np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image


class Robot:
    observation_features: ClassVar = {
        **dict.fromkeys(joints, float),
        "top": picture(top).shape,
        "wrist": picture(wrist).shape,
    }
    action_features: ClassVar = dict.fromkeys(joints, float)

    def __init__(self) -> None:
        self.sent: list[list[float]] = []
        self.has_enough = threading.Event()

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def get_observation(self) -> dict:
        numbers = {joint: float(value) for joint, value in zip(joints, state, strict=True)}
        return {**numbers, "top": picture(top), "wrist": picture(wrist)}

    def send_action(self, action: dict) -> dict:
        self.sent.append([action[joint] for joint in joints])
        if len(self.sent) >= ROWS:
            self.has_enough.set()
        return action


robot = Robot()
robot_client.make_robot_from_config = lambda config: robot
client = robot_client.RobotClient(
    configs.RobotClientConfig(
        policy_type="act",
        pretrained_name_or_path=policy,
        robot=None,
        actions_per_chunk=len(chunk),
        chunk_size_threshold=0.0,  # it asks when it has no action left, so that chunks do not overlap
        task="fold",
        server_address=address,
    )
)
if not client.start():
    sys.exit("refused")
for loop in (client.receive_actions, lambda: client.control_loop("fold")):
    threading.Thread(target=loop, daemon=True).start()
assert robot.has_enough.wait(MOST_S), f"{len(robot.sent)} actions in {MOST_S} s"
client.stop()
# Each action is a row of its own sample's chunk, and the first ones are the first chunk's. Later an observation has the
# timestep of the last action, so that row 0 is over. A row may be there twice: the client takes an action
# out of its queue, and puts it in again where an answer comes before it has noted that.
distances = np.abs(np.array(robot.sent[:ROWS])[:, None] - chunk[None]).max(-1)
order = distances.argmin(-1).tolist()
assert distances.min(-1).max() <= TOLERANCE, (order, distances.min(-1))
assert [row for row, _ in groupby(order)][: len(chunk)] == list(range(len(chunk))), order
print(f"{ROWS} right actions")
