"""Writes what LeRobot's client unpickles, and reads it again. Pure: there is no torch here, and no LeRobot.

The client executes a list of its own TimedAction, each with a one-dimensional tensor. A pickle of protocol 2 says that
with three names, the client's own class twice and `torch.tensor`; the bytes are those that the client was seen to take.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import WireError
from policyserve.core.limits import REPLY_LIMITS
from policyserve.core.pickle_things import Thing, told_of
from policyserve.dialects.lerobot.observations import Context
from policyserve.dialects.lerobot.pickled import ACTION, TENSOR, fields_of, read_thing

FPS = 30.0  # by which LeRobot's server tells when each action is due; its client goes by the timesteps
_FLOAT = struct.Struct(">cd")
_NUMBER = np.dtype([("opcode", "u1"), ("value", ">f8")])  # BINFLOAT


def write_actions(actions: Array, context: Context) -> bytes:
    """Pickle a chunk, (steps, action), for the client that asked."""
    made = [b"\x80\x02]q\x00("]
    head = f"c{context.module}\n{ACTION}\n".encode() + b")\x81}(" + _text("timestamp")
    between, after = _text("timestep"), _text("action") + b"ctorch\ntensor\n(]("
    numbers = np.empty(actions.shape, _NUMBER)
    numbers["opcode"], numbers["value"] = ord("G"), actions
    for step, action in enumerate(numbers):
        made += (head, _number(context.timestamp + step / FPS), between, _whole(context.timestep + step))
        made += (after, action.tobytes(), b"etRub")
    made.append(b"e.")
    return b"".join(made)


def read_actions(message: bytes | bytearray | memoryview) -> tuple[Array, list[int]]:
    """The actions, (steps, action), and their timesteps, of what write_actions() wrote; raises WireError."""
    listed = read_thing(message, REPLY_LIMITS, is_answer=True)
    if not isinstance(listed, list):
        raise WireError("", "a list of actions", told_of(listed))
    rows: list[Array] = []
    timesteps: list[int] = []
    for number, one in enumerate(listed):
        fields = fields_of(one, ACTION)
        rows.append(_row(fields.get("action"), f"{number}/action"))
        timesteps.append(_timestep(fields.get("timestep"), f"{number}/timestep"))
        if rows[-1].shape != rows[0].shape:
            raise WireError(f"{number}/action", f"{len(rows[0])} numbers, as the first has", f"{len(rows[-1])}")
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32), timesteps


def _row(tensor: Any, path: str) -> Array:
    is_tensor = isinstance(tensor, Thing) and tensor.kind == TENSOR and isinstance(tensor.args, tuple)
    numbers = tensor.args[0] if is_tensor and tensor.args else None
    if not isinstance(numbers, list) or not all(isinstance(one, (int, float)) for one in numbers):
        raise WireError(path, "a tensor of numbers", told_of(tensor))
    try:
        return np.array(numbers, np.float64).astype(np.float32)
    except OverflowError:
        raise WireError(path, "numbers of 64 bits", "a longer one") from None


def _timestep(value: Any, path: str) -> int:
    if type(value) is not int:
        raise WireError(path, "a whole number", told_of(value))
    return value


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _number(value: float) -> bytes:
    return _FLOAT.pack(b"G", value)


def _whole(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    return b"\x8a\x05" + value.to_bytes(5, "little", signed=True)
