"""The gRPC messages around LeRobot's pickles, read and written by hand: two fields need no compiler. Pure.

    Observation  1: how it goes on (BEGIN 1, MIDDLE 2, END 3)   2: bytes, a part of a pickle
    PolicySetup  1: bytes, a pickle
    Actions      1: bytes, a pickle; none: there are no actions now

An observation is a stream of its parts, since gRPC takes 4 MiB in one message. One of a single part is just END.
"""

from __future__ import annotations

from policyserve.core.errors import WireError

BEGIN, MIDDLE, END = 1, 2, 3
_STATE, _DATA = 1, 2  # fields of Observation
_SETUP = _ACTIONS = 1
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # how a field is written
_MOST_BITS = 64


def read_setup_data(message: bytes) -> bytes:
    """The pickle in a PolicySetup; raises WireError."""
    return _data_of(_fields(message), _SETUP)


def write_setup(pickled: bytes) -> bytes:
    """A PolicySetup message with this pickle."""
    return b"\x0a" + _varint(len(pickled)) + pickled


def write_part(state: int, data: bytes) -> bytes:
    """An Observation message. state: BEGIN, MIDDLE or END."""
    return b"\x08" + _varint(state) + b"\x12" + _varint(len(data)) + data


def write_actions(pickled: bytes) -> bytes:
    """An Actions message with this pickle."""
    return b"" if not pickled else b"\x0a" + _varint(len(pickled)) + pickled


def read_actions_data(message: bytes) -> bytes:
    """The pickle in an Actions message, empty where there are no actions; raises WireError."""
    return _data_of(_fields(message), _ACTIONS)


class Parts:
    """Puts one observation together. most: bytes that it may have."""

    def __init__(self, most: int) -> None:
        self.data = bytearray()
        self._most = most
        self._has_begun = False

    def add(self, message: bytes) -> bool:
        """Take an Observation message; returns whether it was the last. Raises WireError, and is empty then."""
        try:
            return self._add(message)
        except WireError:
            self.data = bytearray()
            raise

    def _add(self, message: bytes) -> bool:
        fields = _fields(message)
        state = fields.get(_STATE, 0)
        if state not in (BEGIN, MIDDLE, END):
            raise WireError("transfer_state", "BEGIN (1), MIDDLE (2) or END (3)", f"{state!r:.40}")
        if state == MIDDLE and not self._has_begun:
            raise WireError("transfer_state", "BEGIN or END as the first part", "MIDDLE")
        if state == BEGIN:  # its client starts over
            self.data, self._has_begun = bytearray(), True
        part = _data_of(fields, _DATA)
        if len(self.data) + len(part) > self._most:
            raise WireError("data", f"at most {self._most} bytes in all (--max-frame-mib)", "more")
        self.data += part
        return state == END


def _data_of(fields: dict[int, int | bytes], number: int) -> bytes:
    data = fields.get(number, b"")
    if not isinstance(data, bytes):
        raise WireError("data", "bytes", "a number")
    return data


def _fields(message: bytes) -> dict[int, int | bytes]:
    """A message's fields by their numbers; of one that comes twice the last, as the format has it."""
    found: dict[int, int | bytes] = {}
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        kind = tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, place = _read_varint(message, place)
        elif kind in (_BYTES, _EIGHT, _FOUR):
            size, place = _read_varint(message, place) if kind == _BYTES else (8 if kind == _EIGHT else 4, place)
            value, place = message[place : place + size], place + size
            if place > len(message):
                raise WireError("", "a whole message", "one whose end is missing")
        else:
            raise WireError("", "a message of LeRobot's transport.AsyncInference", f"a field of kind {kind}")
        found[tag >> 3] = value
    return found


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = 0
    for shift in range(0, _MOST_BITS + 6, 7):
        if place >= len(message):
            raise WireError("", "a whole message", "one whose end is missing")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise WireError("", "numbers of at most 64 bits", "a longer one")


def _varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
