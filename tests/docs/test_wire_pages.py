"""The bytes that docs/wire shows are the bytes that the dialects write."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from policyserve.core.dialect import opening_of
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects import by_name
from policyserve.dialects.lerobot.answers import write_actions
from policyserve.dialects.lerobot.messages import END
from policyserve.dialects.lerobot.observations import Context
from policyserve.dialects.vla_eval import VlaEval
from policyserve.dialects.xpolicylab import XPolicyLab
from tests.server.lerobot_grpc.calling import part

PAGES = Path(__file__).parents[2] / "docs" / "wire"
TIMING = Timing(queue_ms=0.1, infer_ms=0.5, total_ms=1.25)
STATE = {"state": np.arange(3, dtype=np.float32), "prompt": "go"}
EXAMPLES = {
    "vibe_rl": ({"obs": np.arange(4, dtype=np.float32)}, np.array(1, np.int32)),
    "openpi": (STATE, np.array([[0, 1]], np.float32)),
    "wall_x": (STATE, np.array([[0, 1]], np.float32)),
    "starvla": (STATE, np.array([[0, 1]], np.float32)),
    "roboarena": (STATE, np.array([[0, 1]], np.float32)),
    "vllm_omni": (STATE, np.array([[0, 1]], np.float32)),
    "behavior1k": (STATE, np.array([0, 1], np.float32)),
    "molmospaces": (STATE, np.array([0, 1], np.float32)),
    "gr00t": (STATE, np.array([[0, 1]], np.float32)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_page_shows_the_request_and_the_reply_byte_for_byte(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    shown = [bytes.fromhex(block) for block in re.findall(r"```\n([0-9a-f ]+)\n```", page)]
    observation, actions = EXAMPLES[name]
    dialect = by_name(name)
    assert shown == [dialect.write_request(observation), dialect.write_reply(ActionChunk(actions), TIMING)]
    for frame in shown:
        assert f"{len(frame)} bytes" in page


def frames_of(page: str) -> list[bytes]:
    return [bytes.fromhex(block) for block in re.findall(r"```\n([0-9a-f ]+)\n```", page)]


def test_vla_evals_page_shows_a_hello_an_observation_and_its_action() -> None:
    page, wire = (PAGES / "vla_eval.md").read_text(), VlaEval()
    seen = wire.write_request({"states": np.arange(2, dtype=np.float32), "task_description": "go"})
    action = wire.write_answer(ActionChunk(np.array([0, 1], np.float32)), TIMING, wire.read_request(seen).context)
    shown = frames_of(page)
    assert shown == [opening_of(wire)[0], seen, action]
    assert all(f"{len(frame)} bytes" in page for frame in shown)


def test_xpolicylabs_page_shows_a_request_and_its_answer() -> None:
    page, wire = (PAGES / "xpolicylab.md").read_text(), XPolicyLab()
    seen, answer = frames_of(page)
    request = wire.read_request(seen)
    assert request.observation["prompt"] == "go"
    assert request.observation["state"]["arm_joint_state"].tolist() == [0, 1]
    assert wire.write_answer(ActionChunk(np.array([[0, 1]], np.float32)), TIMING, request.context) == answer
    assert all(f"{len(frame)} bytes" in page for frame in (seen, answer))


def test_lerobots_page_shows_an_observation_and_an_answer_byte_for_byte() -> None:
    page = (PAGES / "lerobot.md").read_text()
    shown = [bytes.fromhex(block) for block in re.findall(r"```\n([0-9a-f ]+)\n```", page)]
    asked = Context(100.0, 7, "lerobot.async_inference.helpers")
    assert shown == [part(END, b"abc"), write_actions(np.array([[0.5], [-1.0]]), asked)]
    assert all(f"{len(frame)} bytes" in page for frame in shown)


@pytest.mark.parametrize("name", ["openpi", "wall_x"])
def test_the_page_shows_what_stands_around_a_jpeg(name: str) -> None:
    (shown,) = re.findall(r"```\n([0-9a-f ]+ … [0-9a-f ]+)\n```", (PAGES / "openpi.md").read_text())
    before, after = (bytes.fromhex(part) for part in shown.split("…"))
    image = EncodedImage(b"\xff\xd8" + bytes(897) + b"\xff\xd9")
    image.shape = (48, 64, 3)
    assert by_name(name).write_request({"image": image}) == before + bytes(image.data) + after
    assert "JPEG of 901 bytes" in (PAGES / "openpi.md").read_text()
