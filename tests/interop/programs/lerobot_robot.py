"""LeRobot's RobotClient, unmodified, and a robot that is none; for the programs beside it, where lerobot 0.4.4 is."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import threading
import types
from abc import ABC, abstractmethod
from typing import Any


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


class Robot(ABC):
    """Has joints and cameras, and notes what it is sent; what it sees and when it has enough is each program's own."""

    def __init__(self, joints: list[str], cameras: dict[str, tuple[int, ...]]) -> None:
        self.action_features = dict.fromkeys(joints, float)
        self.observation_features = {**self.action_features, **cameras}
        self.sent: list[list[float]] = []
        self.is_done = threading.Event()

    @abstractmethod
    def has_enough(self) -> bool: ...

    def connect(self) -> None: ...  # noqa: B027 - there is nothing to connect

    def disconnect(self) -> None: ...  # noqa: B027

    @abstractmethod
    def get_observation(self) -> dict[str, Any]: ...

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self.sent.append([action[joint] for joint in self.action_features])
        if self.has_enough():
            self.is_done.set()
        return action


def drive(robot: Robot, address: str, policy: str, actions: int, fps: int = 30, most_s: float = 300) -> None:
    """Have a RobotClient move the robot until it has enough. actions: of a chunk. fps: actions in a second."""
    robot_client.make_robot_from_config = lambda config: robot
    client = robot_client.RobotClient(
        configs.RobotClientConfig(
            policy_type="act",
            pretrained_name_or_path=policy,
            robot=None,
            actions_per_chunk=actions,
            chunk_size_threshold=0.0,  # it asks when it has no action left
            aggregate_fn_name="latest_only",  # where chunks overlap all the same, no average of them is executed
            task="fold",
            server_address=address,
            fps=fps,
        )
    )
    if not client.start():
        sys.exit("refused")
    for loop in (client.receive_actions, lambda: client.control_loop("fold")):
        threading.Thread(target=loop, daemon=True).start()
    assert robot.is_done.wait(most_s), f"{len(robot.sent)} actions in {most_s} s"
    client.stop()
