"""PyPI's openpi-client, unmodified: ask COUNT times and check every answer. Usage: PORT COUNT SALT"""

import sys

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, count, salt = (int(argument) for argument in sys.argv[1:])
policy = WebsocketClientPolicy("127.0.0.1", port)
assert "policyserve" in policy.get_server_metadata()
for number in range(count):
    state = np.array([salt, number, 0.5], np.float32)
    image = np.full((24, 32, 3), number % 256, np.uint8)
    answer = policy.infer({"observation/image": image, "observation/state": state, "prompt": f"step {number}"})
    assert np.array_equal(answer["actions"], np.stack([state, state * 2])), (number, answer)
    assert answer["server_timing"]["infer_ms"] >= 0
    assert ("prev_total_ms" in answer["server_timing"]) == (number > 0)
print(f"{count} right answers")
