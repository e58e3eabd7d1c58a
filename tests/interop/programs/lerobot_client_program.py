"""LeRobot's RobotClient, unmodified, with a robot that sees one golden observation all the time.

Arguments: the server's address, the policy's name, a golden file of an ACT with two cameras, which of its samples. Says
how many actions arrived and were right.
"""

from __future__ import annotations

import sys
from itertools import groupby

import numpy as np
from lerobot_robot import Robot, drive

ROWS, TOLERANCE = 25, 1e-4

address, policy, golden, sample = sys.argv[1], sys.argv[2], np.load(sys.argv[3]), int(sys.argv[4])
state = golden["chunk/obs/observation.state"][sample, 0]
chunk = golden["chunk/actions"][sample]
joints = [f"joint_{number}.pos" for number in range(len(state))]


def picture(name: str) -> np.ndarray:
    """As a camera gives it, (H, W, 3) uint8."""
    image = golden[f"chunk/obs/observation.images.{name}"][sample, 0]
    return np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image


pictures = {name: picture(name) for name in ("top", "wrist")}


class Golden(Robot):
    def get_observation(self) -> dict:
        return {**{joint: float(value) for joint, value in zip(joints, state, strict=True)}, **pictures}

    def has_enough(self) -> bool:
        return len(self.sent) >= ROWS


robot = Golden(joints, {name: image.shape for name, image in pictures.items()})
drive(robot, address, policy, len(chunk))
# Each action is a row of its own sample's chunk, and the first ones are the first chunk's. Later an observation has the
# timestep of the last action, so that row 0 is over. A row may be there twice: the client takes an action
# out of its queue, and puts it in again where an answer comes before it has noted that.
distances = np.abs(np.array(robot.sent[:ROWS])[:, None] - chunk[None]).max(-1)
order = distances.argmin(-1).tolist()
assert distances.min(-1).max() <= TOLERANCE, (order, distances.min(-1))
assert [row for row, _ in groupby(order)][: len(chunk)] == list(range(len(chunk))), order
print(f"{ROWS} right actions")
