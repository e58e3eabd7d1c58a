"""Conversations of the families that are greeted: nothing raises, no message has two answers, episodes are bounded."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from policyserve import dialects
from policyserve.core.effects import Answered, Failed, Send, Submit
from policyserve.core.errors import Overloaded, PolicyFailed, WireError
from policyserve.core.messages import Control, Request, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from tests.fuzz.choices import Choices

_NAMES = ("starvla", "roboarena", "dreamzero", "vllm_omni", "behavior1k", "molmospaces", None)
_SPEC = PolicySpec(
    "fuzzed",
    observation={
        "images": {"0": ImageSpec(optional=True), "head": ImageSpec(optional=True)},
        "observation/exterior_image_1_left": ImageSpec(optional=True),
        "state": ArraySpec((2,), optional=True),
        "prompt": TextSpec(default=""),
    },
    action=None,
    max_client_batch=4,
)
_FACTS: tuple[dict[str, Any], ...] = (
    {},
    {"modality": {"arm": 1, "gripper": 1}, "task_prompts": ["a", "b"], "available_unnorm_keys": ["franka"]},
    {"modality": {"arm": 0}, "task_prompts": {"0": 4}, "available_unnorm_keys": 4, "action_chunk_size": "x"},
    {"modality": [1], "task_prompts": 4, "image_resolution": [1], "n_external_cameras": -1, "action_space": b"x"},
)
_ODD = (None, True, -1, 1 << 63, 1.5, "", "x" * 300, b"x", [1], {"a": 1}, [[]], {"nd": True}, {"__ndarray__": True})
_KEYS = (
    *("state", "prompt", "endpoint", "session_id", "examples", "type", "request_id", "payload", "reset", "task"),
    *("qpos", "task_id", "robot_r1::proprio", "robot_r1::robot_r1:zed_link:Camera:0::rgb", "::rgb", "a:::b::rgb"),
    *("observation/exterior_image_0_left", "observation/exterior_image_999_left", "unnorm_key", "image", "lang"),
    *("images", "head", ""),
)
_MOST = 10  # messages


def check_families(data: bytes) -> None:
    """A few messages to one session, whose answers come in any order."""
    choices = Choices(data)
    name = choices.pick(_NAMES)
    dialect = None if name is None else dialects.by_name(name)
    session = Session(dialect, choice=dialects.Auto(), max_pending=3)
    metadata = {"spec": _SPEC.describe(), "policyserve": "0", **choices.pick(_FACTS)}
    effects = [*session.serve(_SPEC, metadata), *session.silence()]
    assert len(effects) == 1, "all are greeted, whatever the policy says of itself"
    effects, asked = [], 1 + choices.number(_MOST)
    tickets: list[int] = []
    for number in range(asked):
        message = _message(choices)
        _check_alone(message)
        new = session.receive(memoryview(bytearray(message)), float(number * choices.pick((0, 1, 100))))
        effects += new
        tickets += [effect.ticket for effect in new if isinstance(effect, Submit)]
        if tickets and choices.chance(2):
            effects += session.answer(tickets.pop(choices.number(len(tickets) - 1)), _outcome(choices), 0.1)
    while tickets:
        effects += session.answer(tickets.pop(), _outcome(choices), 0.2)
    assert session.closed or session.pending == 0
    assert sum(isinstance(effect, Send) for effect in effects) <= asked
    for effect in effects:
        assert not isinstance(effect, Failed) or "reading the request failed" not in str(effect.error)


def _check_alone(message: bytes) -> None:
    for name in filter(None, _NAMES):
        dialect: Any = dialects.by_name(name)
        for owned in (message, memoryview(bytearray(message))):
            try:
                heard = dialect.read_message(owned)
            except WireError:
                continue
            assert isinstance(heard, (Request, Control, Unreadable))
            assert not isinstance(heard, Request) or isinstance(heard.observation, dict)


def _message(choices: Choices) -> bytes:
    fields: dict[str, Any] = {}
    for _ in range(choices.number(5)):
        fields[choices.pick(_KEYS)] = _value(choices, 0)
    if choices.chance(3):
        fields["endpoint"] = choices.pick(("infer", "infer", "reset", "", 4))
    if choices.chance(3):
        fields["session_id"] = choices.pick(("a", "b", 7, "x" * 300, {"n": 1}))
    if choices.chance(3):
        example = {choices.pick(("image", "state", "lang", "x")): _value(choices, 1) for _ in range(choices.number(4))}
        fields["examples"] = [example] * choices.number(3)
    if choices.chance(4):
        fields = {"type": choices.pick(("infer", "ping", "reset", 4)), "request_id": "r", "payload": fields}
    packed = msgpack.packb(fields)
    assert isinstance(packed, bytes)
    return choices.scribbled(packed) if choices.chance(6) else packed


def _value(choices: Choices, depth: int) -> Any:
    kind = choices.number(6)
    if kind == 0 and depth < 4:
        return [_value(choices, depth + 1) for _ in range(choices.number(3))]
    if kind == 1 and depth < 4:
        return {choices.pick(_KEYS): _value(choices, depth + 1) for _ in range(choices.number(3))}
    if kind < 5:
        mark, dtype = choices.pick((("__ndarray__", "dtype"), ("nd", "type")))
        shape, size = choices.pick(
            (([2], 8), ([1, 2], 8), ([2, 2, 3], 12), ([2, 2, 4], 16), ([], 4), ([1], 8), ([0], 0))
        )
        of = choices.pick(("<f4", "|u1", "<i8")) if choices.chance(2) else {8: "<f4", 4: "<f4"}.get(size, "|u1")
        return {mark: True, dtype: of, "shape": shape, "data": bytes(size), "kind": choices.pick((b"", "f", b"O"))}
    return choices.pick(_ODD)


def _outcome(choices: Choices) -> Any:
    actions = np.zeros(
        choices.pick(((3, 2), (2,), (1, 2), (2, 3, 2), (), (0, 2), (8,))), choices.pick(("f4", "f8", "i8"))
    )
    extras = choices.pick(({}, {"note": "hi"}, {"bad": object()}))
    answered = Answered(ActionChunk(actions, extras=extras), 0.0, 0.1)
    return choices.pick((answered, answered, answered, PolicyFailed("raised"), Overloaded("full", 5.0)))
