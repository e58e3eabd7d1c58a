"""Positronic's client of RoboArena's servers, unmodified: probe, ask COUNT times, reset. Usage: PORT COUNT SALT"""

import sys

import numpy as np
from positronic.offboard.roboarena import RoboarenaClient

port, count, salt = (int(argument) for argument in sys.argv[1:])
client = RoboarenaClient("127.0.0.1", port)
assert client.probe() is None
client.connect()
assert client.server_config["needs_session_id"] is True
for number in range(count):
    state = np.array([salt, number, 0.5], np.float32)
    answer = client.infer({"observation/state": state, "session_id": f"s{number // 3}", "prompt": f"step {number}"})
    assert np.array_equal(answer["actions"], np.stack([state, state * 2])), (number, answer)
    if number % 3 == 2:
        client.reset(f"s{number // 3}")
client.close()
print(f"{count} right answers")
