"""inspect-robots-unitree-g1's policy, a client of GR00T N1.7: check every answer. Usage: PORT COUNT SALT"""

import sys

import numpy as np
from inspect_robots.scene import Scene
from inspect_robots.types import Observation
from inspect_robots_unitree_g1.policy import Gr00tPolicy

port, count, salt = (int(argument) for argument in sys.argv[1:])
policy = Gr00tPolicy(host="127.0.0.1", port=port, timeout_s=60)
policy.reset(Scene(id="s", instruction="pick up the apple"))
for number in range(count):
    value = (salt * 1000 + number) / 1024  # which float32 holds
    state = {
        "joint_pos": np.full(16, value),
        "left_leg": np.zeros(6),
        "right_leg": np.zeros(6),
        "waist": np.zeros(3),
    }
    picture = np.full((24, 32, 3), number % 256, np.uint8)
    chunk = policy.act(Observation(images={"head_cam": picture}, state=state))
    rows = np.stack([action.data for action in chunk.actions])
    assert np.isfinite(rows).all()
    assert (rows[:, :7] == value).all(), (number, rows)
print(f"{count} right answers")
