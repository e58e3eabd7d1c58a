"""A client's half: what it writes is what N1.6's client writes, and every version's answer is read."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.errors import RemoteError, WireError
from policyserve.dialects import by_name
from tests.dialects.gr00t.golden import ACTIONS, golden

DIALECT = by_name("gr00t")
FRONT = (np.arange(18) * 7).astype(np.uint8).reshape(2, 3, 3)
OBSERVATION = {
    "images": {"front": FRONT, "wrist": np.zeros((2, 3, 3), np.uint8)},
    "state": {"single_arm": np.arange(5, dtype=np.float32), "gripper": np.zeros(1)},
    "prompt": "pick and place",
}
FLAT = {
    "video.front": FRONT,
    "video.wrist": np.zeros((2, 3, 3), np.uint8),
    "state.single_arm": np.arange(5),
    "state.gripper": np.zeros((1, 1, 1)),
    "annotation.human.task_description": [["pick and place"]],
}


def packed(message: Any) -> bytes:
    made = msgpack.packb(message)
    assert isinstance(made, bytes)
    return made


@pytest.mark.parametrize("observation", [OBSERVATION, FLAT], ids=["by what they are", "by their names there"])
def test_a_request_is_the_originals_but_for_its_token(observation: Any) -> None:
    token = packed("api_token") + packed("tok")
    original = golden("n16", "get_action").replace(token, b"")
    written = DIALECT.write_request(observation)
    # N1.6's client puts the spec's text under this name; the golden one has the same.
    assert b"\x82" + original[1:] == written


@pytest.mark.parametrize("version", ["n15", "n16", "n17"])
def test_an_answer_of_each_version_is_read(version: str) -> None:
    reply = DIALECT.read_reply(golden(version, "get_action_reply"))
    assert reply.actions.tolist() == ACTIONS.tolist()
    assert reply.actions.shape == (4, 6)
    assert len(reply.fields) == 2


def test_an_error_is_raised_with_its_code_where_it_has_one() -> None:
    with pytest.raises(RemoteError, match="Unauthorized") as caught:
        DIALECT.read_reply(golden("n16", "bad_token_reply"))
    assert caught.value.code == "remote"
    with pytest.raises(RemoteError) as caught:
        DIALECT.read_reply(packed({"error": "overloaded: full"}))
    assert caught.value.code == "overloaded"


@pytest.mark.parametrize("answer", [[], [1, 2], {}, {"a": 1}, [{"a": "text"}, {}], 3, [{}, {}], "text"])
def test_what_is_no_answer_is_refused(answer: Any) -> None:
    with pytest.raises(WireError):
        DIALECT.read_reply(packed(answer))


def test_groups_of_different_steps_are_no_answer() -> None:
    nd = {b"nd": True, b"type": "<f4", b"kind": b"", b"data": bytes(24)}
    answer = [{"a": {**nd, b"shape": [1, 2, 3]}, "b": {**nd, b"shape": [1, 3, 2]}}, {}]
    with pytest.raises(WireError, match="of the same steps"):
        DIALECT.read_reply(packed(answer))


def test_what_cannot_be_sent_is_named() -> None:
    with pytest.raises(WireError, match="state/arm"):
        DIALECT.write_request({"state": {"arm": object()}})


def test_there_is_no_greeting() -> None:
    assert DIALECT.greeting({}) is None
    with pytest.raises(WireError, match="no message before the first request"):
        DIALECT.read_greeting(b"\x80")
