"""Clients that ask by HTTP, unmodified: ask COUNT times and check every answer. Usage: FAMILY PORT COUNT SALT

Each picture has one colour, which the policy answers as a part of 256, with the salt, in steps of as many numbers as
the instruction says.
"""

import sys

import json_numpy
import numpy as np
import requests

family, (port, count, salt) = sys.argv[1], (int(argument) for argument in sys.argv[2:])
url = f"http://127.0.0.1:{port}"


def picture(number, height=32, width=32):
    return np.full((height, width, 3), number % 256, np.uint8)


def post(body):
    answer = requests.post(f"{url}/act", json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


def scene(text):
    from inspect_robots.scene import Scene

    return Scene(id="s", instruction=text)


def observation(images, state):
    from inspect_robots.types import Observation

    return Observation(images=images, state=state)


def widowx():
    from inspect_robots_widowx.policy import OpenVLAPolicy

    policy = OpenVLAPolicy(server_url=url)
    policy.reset(scene(f"{salt} 7"))
    return lambda n: policy.act(observation({"external_cam": picture(n, 48, 64)}, {})).actions[0].data[None]


def yam():
    from inspect_robots_yam.policy import ActServerPolicy

    policy = ActServerPolicy(server_url=url, cam_height=32, cam_width=32)
    policy.reset(scene(f"{salt} 14"))

    def act(n):
        images = {name: picture(n) for name in ("top_cam", "left_cam", "right_cam")}
        chunk = policy.act(observation(images, {"joint_pos": np.zeros(14)}))
        return np.stack([action.data for action in chunk.actions])

    return act


def openvla():
    json_numpy.patch()
    return lambda n: post({"image": picture(n), "instruction": f"{salt} 7", "unnorm_key": "bridge_orig"})[None]


def oft():
    json_numpy.patch()
    names = ("full_image", "left_wrist_image", "right_wrist_image")

    def act(n):
        body = {**{name: picture(n) for name in names}, "state": np.zeros(14), "instruction": f"{salt} 14"}
        return np.stack([np.asarray(row.tolist()) for row in post(body)])

    return act


def xvla():
    def act(n):
        body = {"proprio": json_numpy.dumps(np.zeros(20)), "image0": json_numpy.dumps(picture(n))}
        return np.asarray(post({**body, "language_instruction": f"{salt} 20", "domain_id": 3, "steps": 10})["action"])

    return act


def gr00t_http():
    json_numpy.patch()
    texts = {"annotation.human.task_description": [f"{salt} 19"]}

    def act(n):
        seen = {"video.front": picture(n)[None], "state.left_arm": np.zeros((1, 7)), **texts}
        return np.column_stack([*post({"observation": seen}).values()])  # a part of one number has no axis for it

    return act


families = {"widowx": widowx, "yam": yam, "openvla": openvla, "oft": oft, "xvla": xvla, "gr00t_http": gr00t_http}
ask = families[family]()
for number in range(count):
    actions = ask(number)
    assert np.allclose(actions[:, 1:], number % 256 / 256), (number, actions)
    assert np.allclose(actions[:, 0], salt + np.arange(len(actions))), (number, actions)
    assert len(actions) == (1 if family in ("widowx", "openvla") else 3), actions.shape
print(f"{count} right answers")
