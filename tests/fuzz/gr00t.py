"""GR00T's dialect: whatever a client sends, it gets one answer, and its session stays."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from policyserve.core.dialect import Dialect
from policyserve.core.effects import Answered, Send, Submit
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk, open_spec
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects import by_name
from policyserve.dialects.gr00t.envelope import Envelope, open_envelope, token_of, without_token
from policyserve.dialects.gr00t.spellings import ND, NPY
from policyserve.dialects.unpacking import unpack
from tests.fuzz.choices import Choices

DIALECT: Dialect = by_name("gr00t")
SPECS = (
    open_spec("open"),
    PolicySpec(
        "parts",
        {
            "images/front": ImageSpec(optional=True),
            "state": {"arm": ArraySpec((2,), optional=True)},
            "video.scene": ArraySpec((2, None, None, 3), "uint8", optional=True),
            "prompt": TextSpec(default=""),
        },
        ArraySpec((3,)),
        horizon=2,
        max_client_batch=4,
        metadata={"modality": {"arm": 2, "gripper": 1}},
    ),
)
_ENDPOINTS = ("get_action", "ping", "reset", "get_modality_config", "kill", "nope", "", 3, None)
_KEYS = (
    "video",
    "state",
    "language",
    "video.front",
    "state.arm",
    "annotation.x",
    "task",
    "observation",
    "options",
    "x",
)
_NAMES = ("front", "arm", "scene", "annotation.human.task_description", "", "é")
_SHAPES = ((1, 1, 2), (1, 2), (2, 1, 2), (1, 1, 2, 2, 3), (1, 2, 2, 2, 3), (0,), (), (1, 2, 2, 3), (4, 1, 1, 1, 3))
_TEXTS = ("go", ["go"], [["go"]], [["go"], ["stop"]], [], [[]], [3], 3, None)
_DTYPES = ("<f4", "<f8", "|u1", ">i2", "|b1", "<f2")


def check_gr00t(data: bytes) -> None:
    """Messages of a client to one session, whose policy answers each."""
    choices = Choices(data)
    spec = choices.pick(SPECS)
    session = Session(DIALECT, max_pending=8)
    session.serve(spec, {**spec.metadata, "spec": spec.describe()})
    for _ in range(1 + choices.number(4)):
        message = memoryview(bytearray(_message(choices)))
        _check_hiding(message)
        assert _answers(session, message) == 1
        assert not session.closed


def _check_hiding(message: memoryview) -> None:
    """A token becomes stars, and nothing else is another."""
    token = token_of(message)
    hidden = without_token(message, token)
    assert len(hidden) == len(message)
    if token:
        endpoint, _, told = open_envelope(message)
        assert repr(open_envelope(hidden)) == repr(Envelope(endpoint, "*" * len(token.encode()), told))


def _answers(session: Session, message: memoryview) -> int:
    """How many answers a message gets; each is a map or a list."""
    with np.errstate(all="raise"):
        effects = session.receive(message, 0.0)
        for submit in [one for one in effects if isinstance(one, Submit)]:
            batch = () if submit.batch_size is None else (submit.batch_size,)
            chunk = ActionChunk(np.zeros((*batch, 2, 3), np.float32))
            effects += session.answer(submit.ticket, Answered(chunk, 0.0, 0.0), 0.0)
    sent = [one.message for one in effects if isinstance(one, Send)]
    for one in sent:
        assert isinstance(one, bytes)
        assert isinstance(unpack(one, texts=True), (dict, list))
    return len(sent)


def _message(choices: Choices) -> bytes:
    if choices.chance(8):
        return choices.rest()
    message: dict[str, Any] = {"endpoint": choices.pick(_ENDPOINTS), "data": _data(choices, 0)}
    for key in ("endpoint", "data"):
        if choices.chance(6):
            del message[key]
    if choices.chance(3):
        message["api_token"] = choices.pick(("tok", "x", "state", "é", 3, None))
    spelling = choices.pick((NPY, ND))
    written = msgpack.packb(message, default=spelling.write)
    assert isinstance(written, bytes)
    return choices.scribbled(written) if choices.chance(2) else written


def _data(choices: Choices, depth: int) -> Any:
    if choices.chance(3):
        return choices.pick(_TEXTS)
    if depth > 2 or choices.chance(3):
        return np.zeros(choices.pick(_SHAPES), choices.pick(_DTYPES))
    names = _KEYS if depth < 2 else _NAMES
    return {choices.pick(names): _data(choices, depth + 1) for _ in range(choices.number(3))}


def check_round_trip(data: bytes) -> None:
    """What a client's half writes a server's reads, and the other way round."""
    choices = Choices(data)
    height, width = 1 + choices.number(3), 1 + choices.number(3)
    picture = np.frombuffer(choices.bytes(height * width * 3).ljust(height * width * 3), np.uint8)
    arm = np.frombuffer(choices.bytes(8).ljust(8, b"\0"), np.uint8).astype(np.float32)
    prompt = choices.some_bytes(9).decode("utf-8", "replace")
    given = {"images": {"a": picture.reshape(height, width, 3)}, "state": {"b": arm}, "prompt": prompt}
    read = DIALECT.read_request(DIALECT.write_request(given)).observation
    assert read["prompt"] == prompt
    assert np.array_equal(read["images"]["a"], given["images"]["a"])
    assert np.array_equal(read["state"]["b"], arm)
    actions = arm.reshape(choices.pick(((2, 4), (4, 2), (1, 8), (8, 1))))
    reply = DIALECT.read_reply(DIALECT.write_reply(ActionChunk(actions), Timing(0, 0, 0)))
    assert np.array_equal(reply.actions, actions)
