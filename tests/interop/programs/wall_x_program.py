"""PyPI's msgpack-numpy over websockets, as Wall-X's client does it: check every answer. Usage: PORT COUNT SALT"""

import sys

import msgpack
import msgpack_numpy
import numpy as np
from websockets.sync.client import connect

msgpack_numpy.patch()
port, count, salt = (int(argument) for argument in sys.argv[1:])
with connect(f"ws://127.0.0.1:{port}", max_size=None, ping_interval=None) as socket:
    metadata = msgpack.unpackb(socket.recv())
    assert "policyserve" in metadata, metadata  # on "/", and of a policy without a spec: nothing else is known
    for number in range(count):
        state = np.array([salt, number, 0.5], np.float32)
        image = np.full((24, 32, 3), number % 256, np.uint8)
        observation = {"front_view": image, "state": state, "prompt": "go", "dataset_names": ["a/b"]}
        socket.send(msgpack.packb(observation))
        answer = msgpack.unpackb(socket.recv())
        assert np.array_equal(answer["action"], np.stack([state, state * 2])), (number, answer)
        assert answer["predict_action"].shape == (1, 2, 3)
        assert ("prev_total_ms" in answer["server_timing"]) == (number > 0)
print(f"{count} right answers")
