"""Conversations in dialects that hear more than observations: nothing raises, no message has two answers."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from policyserve import dialects
from policyserve.core.effects import Answered, Failed, Send, Submit
from policyserve.core.errors import Overloaded, PolicyFailed, WireError
from policyserve.core.messages import Request
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects.unpacking import unpack
from tests.fuzz.choices import Choices
from tests.fuzz.jpegs import PNG_SEEDS, SEEDS

_SPEC = PolicySpec(
    "fuzzed",
    observation={
        "images": {"head": ImageSpec(optional=True)},
        "state": ArraySpec((2,), optional=True),
        "prompt": TextSpec(default=""),
    },
    action=None,
)
_KINDS = {
    "vla_eval": ("hello", "observation", "observation", "episode_start", "episode_end", "error", "action", "", 4, None),
    "xpolicylab": (
        *("hello", "prepare_case", "reset", "infer", "infer", "trial_end", "heartbeat", "close", "infer_result"),
        *("", 4, None),
    ),
}
_ODD = (None, True, -1, 1 << 63, 1.5, "", "x" * 300, b"x", [1], {"a": 1})
_MOST = 12  # messages


def check_conversing(data: bytes) -> None:
    """A few messages to one session, whose answers come in any order."""
    choices = Choices(data)
    name = choices.pick(tuple(_KINDS))
    dialect = dialects.by_name(name)
    session = Session(dialect, max_pending=3)
    effects = session.serve(_SPEC, {"spec": _SPEC.describe(), "policyserve": "0"})
    asked = 0
    open_tickets: list[int] = []
    for number in range(1 + choices.number(_MOST)):
        message = _message(choices, name, number)
        asked += 1
        new = session.receive(memoryview(bytearray(message)), 0.0)
        _check_alone(dialect, message)
        while True:
            effects += new
            open_tickets += [effect.ticket for effect in new if isinstance(effect, Submit)]
            if not open_tickets or choices.chance(2):
                break
            new = session.answer(open_tickets.pop(choices.number(len(open_tickets) - 1)), _outcome(choices), 0.1)
    while open_tickets:
        new = session.answer(open_tickets.pop(), _outcome(choices), 0.2)
        effects += new
        open_tickets += [effect.ticket for effect in new if isinstance(effect, Submit)]
    assert session.closed or session.pending == 0
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    assert len(sent) <= asked
    for answer in sent:
        assert not isinstance(answer, str)
        assert isinstance(unpack(answer, texts=True), dict)
    for effect in effects:
        assert not isinstance(effect, Failed) or "reading the request failed" not in str(effect.error)


def _check_alone(dialect: Any, message: bytes) -> None:
    """Read by itself it is a message or a WireError, whoever owns the bytes."""
    for owned in (message, memoryview(bytearray(message))):
        try:
            heard = dialect.read_message(owned)
        except WireError:
            continue
        if isinstance(heard, Request):
            assert isinstance(heard.observation, dict)


def _outcome(choices: Choices) -> Any:
    actions = np.zeros(choices.pick(((3, 2), (2,), (1, 2), (2, 3, 2), (), (0, 2))), choices.pick(("f4", "f8", "i8")))
    return choices.pick(
        (Answered(ActionChunk(actions), 0.0, 0.1), Answered(ActionChunk(actions), 0.0, 0.1), PolicyFailed("raised"))
        + ((Overloaded("full", 5.0),) if choices.chance(3) else ())
    )


def _message(choices: Choices, name: str, number: int) -> bytes:
    make = _vla_eval if name == "vla_eval" else _xpolicylab
    fields = make(choices, number)
    for key in list(fields):
        if choices.chance(16):
            del fields[key]
        elif choices.chance(16):
            fields[key] = choices.pick(_ODD)
    packed = msgpack.packb(fields)
    assert isinstance(packed, bytes)
    return choices.scribbled(packed) if choices.chance(6) else packed


def _vla_eval(choices: Choices, number: int) -> dict[str, Any]:
    kind = choices.pick(_KINDS["vla_eval"])
    payload = {"images": {"head": _picture(choices)}, "states": _array("__ndarray__", "dtype", choices)}
    told = payload if kind == "observation" else {"task": {}, "mode": choices.pick(("live", None, 3))}
    return {"type": kind, "payload": told, "seq": number, "timestamp": 0.5}


def _xpolicylab(choices: Choices, number: int) -> dict[str, Any]:
    observation = {
        "vision": {"head": {"color": _picture(choices)}},
        "state": choices.pick((_array("nd", "type", choices), {"arm_joint_state": _array("nd", "type", choices)})),
        "instruction": "go",
    }
    return {
        "message_type": choices.pick(_KINDS["xpolicylab"]),
        "evaluation_id": "e",
        "trial_id": choices.pick(("a", "b", None)),
        "step": number,
        "sent_at": "now",
        "message_id": f"{number}",
        "payload": {"observation": observation, "trial_id": choices.pick(("a", None))},
    }


def _array(mark: str, dtype: str, choices: Choices) -> Any:
    sizes = choices.pick(([2], [3], [1, 2], [], [-1], ["2"]))
    return {mark: True, dtype: choices.pick(("<f4", "<f4", "<f8", "|O")), "shape": sizes, "data": bytes(8)}


def _picture(choices: Choices) -> Any:
    form, shape = choices.pick(("png", "jpeg", "raw", "gif", 3)), choices.pick(([2, 2, 3], [1], [-1], "x"))
    data = choices.pick((*PNG_SEEDS, *SEEDS, bytes(12), b""))
    return {"__image__": choices.pick((True, True, 1)), "format": form, "data": data, "shape": shape, "dtype": "|u1"}
