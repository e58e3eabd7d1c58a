"""PyPI's unmodified openpi-client, driven from outside: reads seconds per line, prints the round trips in seconds.

    /path/to/venv/bin/python benchmarks/rivals/unmodified_client.py HOST PORT cartpole|libero|aloha

The package pins numpy<2 and forgets typing_extensions, so it needs an environment of its own:

    python -m venv openpi-venv && openpi-venv/bin/pip install openpi-client==0.1.2 typing_extensions
"""

import json
import sys
import time

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

RANDOM = np.random.default_rng(0)


def image(*shape):
    return RANDOM.integers(0, 256, shape).astype(np.uint8)


def observation_of(name):
    if name == "cartpole":
        return {"obs": RANDOM.random(4).astype(np.float32)}
    if name == "libero":
        images = {"observation/image": image(224, 224, 3), "observation/wrist_image": image(224, 224, 3)}
        return {**images, "observation/state": RANDOM.random(8).astype(np.float32), "prompt": "pick up the black bowl"}
    cameras = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    state = RANDOM.random(14).astype(np.float32)
    return {"images": {camera: image(3, 480, 640) for camera in cameras}, "state": state}


def main():
    host, port, payload = sys.argv[1:]
    client = WebsocketClientPolicy(host, int(port))
    observation = observation_of(payload)
    client.infer(observation)
    print("ready", flush=True)
    for line in sys.stdin:
        trips, end = [], time.perf_counter() + float(line)
        while (start := time.perf_counter()) < end:
            client.infer(observation)
            trips.append(time.perf_counter() - start)
        print(json.dumps(trips), flush=True)


if __name__ == "__main__":
    main()
