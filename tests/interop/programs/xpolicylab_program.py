"""PyPI's inspect-robots-xpolicylab, unmodified: COUNT requests of two trials, checked. Usage: PORT COUNT SALT"""

import sys

import numpy as np
from inspect_robots.scene import Scene
from inspect_robots.types import Observation
from inspect_robots_xpolicylab.policy import XPolicyLabPolicy

port, count, salt = (int(argument) for argument in sys.argv[1:])
policy = XPolicyLabPolicy(
    url=f"ws://127.0.0.1:{port}", cameras={"cam_head": "base_rgb"}, connect_attempts=1, request_timeout_s=60.0
)
for trial in range(2):
    policy.reset(Scene(id=f"s{trial}", instruction="stack the bowls"))
    for number in range(count // 2):
        joints, gripper = np.full(7, salt + number / 4), np.array([0.5])
        image = np.full((24, 32, 3), number % 256, np.uint8)
        chunk = policy.act(Observation(images={"base_rgb": image}, state={"joint_pos": joints, "gripper": gripper}))
        state = np.concatenate([joints, gripper]).astype(np.float32)
        found = np.stack([action.data for action in chunk.actions])
        wanted = np.stack([state + number % 256, state * 2 + number % 256])
        assert np.array_equal(found, wanted), (number, found, wanted)
policy.close()
print(f"{count} right answers")
