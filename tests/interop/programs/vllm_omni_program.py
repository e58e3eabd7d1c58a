"""PyPI's openpi-client, unmodified, at vLLM-Omni's endpoint: COUNT requests, and resets. Usage: PORT COUNT SALT

The policy declares the parts of its actions, 19 numbers in all: they come as a map.
"""

import sys

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, count, salt = (int(argument) for argument in sys.argv[1:])
policy = WebsocketClientPolicy(f"ws://127.0.0.1:{port}/v1/realtime/robot/openpi", port=None)
assert policy.get_server_metadata()["needs_session_id"] is True
for number in range(count):
    state = np.array([salt, number, 0.5, *[0.0] * 16], np.float32)
    session = f"s{number // 3}"
    answer = policy.infer({"observation/state": state, "session_id": session, "prompt": f"step {number}"})
    assert np.array_equal(np.concatenate([*answer.values()], -1), np.stack([state, state * 2])), (number, answer)
    if number % 3 == 2:
        assert policy.infer({"endpoint": "reset", "session_id": session}) == {"status": "reset successful"}
print(f"{count} right answers")
