"""PyPI's openpi-client, unmodified, asks an ACT for the chunks that LeRobot gave. Usage: PORT GOLDEN.npz"""

import sys

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

NAMES = {
    "observation/image": "images.top",
    "observation/wrist_image": "images.wrist",
    "observation/state": "state",
}
golden = np.load(sys.argv[2])
policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]))
expected = golden["chunk/actions"]
for sample, actions in enumerate(expected):
    seen = {name: golden[f"chunk/obs/observation.{own}"][sample, 0] for name, own in NAMES.items()}
    answer = policy.infer({**seen, "prompt": "unused"})
    assert np.allclose(answer["actions"], actions, atol=1e-4, rtol=0), sample
print(f"{len(expected)} right answers")
