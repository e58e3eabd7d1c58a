"""openpi-client's codec, which starVLA's and BEHAVIOR-1K's clients carry, does what they do. Usage: PORT COUNT SALT"""

import sys
import urllib.request

import numpy as np
import websockets.sync.client
from openpi_client import msgpack_numpy

port, count, salt = (int(argument) for argument in sys.argv[1:])
packer = msgpack_numpy.Packer()


def dialled(path=""):
    return websockets.sync.client.connect(f"ws://127.0.0.1:{port}{path}", compression=None, max_size=None)


def ask(peer, message):
    peer.send(packer.pack(message))
    answer = peer.recv()
    assert isinstance(answer, bytes), answer
    return msgpack_numpy.unpackb(answer)


def starvla(path):
    with dialled(path) as peer:
        size = int(msgpack_numpy.unpackb(peer.recv())["action_chunk_size"])
        assert ask(peer, {"type": "ping", "request_id": "r"})["ok"] is True
        for number in range(count):
            state = np.array([[salt, number, 0.5]], np.float32)
            image = np.full((24, 32, 3), number % 256, np.uint8)
            example = {"image": [image, image], "lang": f"step {number}", "state": state}
            answer = ask(peer, {"examples": [example], "unnorm_key": None})
            assert np.array_equal(answer["data"]["actions"], np.stack([state[0], state[0] * 2])[None]), answer
            assert 1 <= size <= 2


def behavior(path):
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz").status == 200
    with dialled(path) as peer:
        peer.recv()
        peer.send(packer.pack({"reset": True}))
        robot = "robot_r1::robot_r1:"
        for number in range(count):
            state = np.array([salt, number // 2, 0.5], np.float32)
            image = np.full((24, 32, 4), number % 256, np.uint8)
            cameras = {f"{robot}{link}:Camera:0::rgb": image for link in ("left_realsense_link", "zed_link")}
            answer = ask(peer, {**cameras, "robot_r1::proprio": state, "task_id": np.array([4])})
            assert np.array_equal(answer["action"], state * (1 + number % 2)), (number, answer)
            assert ("prev_total_ms" in answer["server_timing"]) == (number > 0)


for path in ("", "/starvla"):
    starvla(path)
for path in ("", "/behavior1k"):
    behavior(path)
print(f"{count} right answers")
