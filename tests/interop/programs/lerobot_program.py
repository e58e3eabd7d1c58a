"""LeRobot's RobotClient, unmodified, until COUNT of its observations are answered. Usage: PORT COUNT SALT

Every observation has numbers of its own, which come back in the actions of its chunk: the state once, and twice, with
the picture's brightness above it. An observation that a newer one replaces while it waits has no answer. It says when
it begins, and takes half a minute, so that others ask at the same time.
"""

from __future__ import annotations

import sys

import numpy as np
from lerobot_robot import Robot, drive

port, count, salt = (int(argument) for argument in sys.argv[1:])
JOINTS = [f"joint_{number}.pos" for number in range(8)]
HORIZON, FPS = 2, 10


class Counting(Robot):
    def __init__(self) -> None:
        super().__init__(JOINTS, {"top": (24, 32, 3)})
        self.seen = 0
        self.answered: list[int] = []  # which of its observations each action answers

    def get_observation(self) -> dict:
        if self.seen == 0:
            print("asks", flush=True)
        number, self.seen = self.seen, self.seen + 1
        picture = np.full((24, 32, 3), number % 256, np.uint8)
        return {**dict(zip(JOINTS, map(float, state(number)), strict=True)), "top": picture}

    def send_action(self, action: dict) -> dict:
        self.answered.append(number_of(list(action.values())))
        return super().send_action(action)

    def has_enough(self) -> bool:
        return len(set(self.answered)) >= count


def state(number: int) -> np.ndarray:
    return np.array([salt, number, 0.5, *[0.0] * 5], np.float32)


def number_of(action: list[float]) -> int:
    """The observation that an action answers; -1: none of ours."""
    bright = action[-1]
    row = round((action[2] - bright) * 2)
    number = round((action[1] - bright) / max(row, 1))
    return number if action == (state(number) * row + number % 256).tolist() else -1


robot = Counting()
drive(robot, f"127.0.0.1:{port}", "together", HORIZON, FPS)
assert min(robot.answered) >= 0, robot.sent[robot.answered.index(-1)]
assert robot.answered == sorted(robot.answered), robot.answered
assert max(robot.answered) < robot.seen
print(f"{count} right answers")
