"""Requests and replies: what a learned layout gives is what decoding afresh gives, and it stays what it was."""

from __future__ import annotations

from typing import Any

import numpy as np

from policyserve import dialects
from policyserve.core.dialect import ZeroCopyDialect
from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.reading import ReplyReader, RequestReader
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from tests.fuzz.choices import Choices

_SPECS = (
    PolicySpec("open", observation=None, action=None),
    PolicySpec(
        "flat",
        observation={
            "image": ImageSpec(),
            "obs": ArraySpec((4,)),
            "steps": ArraySpec((2,), "int32", optional=True),
            "prompt": TextSpec(default="go"),
        },
        action=None,
        max_client_batch=4,
    ),
    PolicySpec("nested", observation={"images": {"high": ImageSpec()}, "obs": ArraySpec((4,), "float64")}, action=None),
    PolicySpec("bare", observation={"obs": ArraySpec((None,))}, action=None),
)


_LEARNED = [name for name in dialects.names() if isinstance(dialects.by_name(name), ZeroCopyDialect)]


def check_layouts(data: bytes) -> None:
    """A session's frames, alike but for a few bytes: each is read as if it was its session's first."""
    choices = Choices(data)
    dialect = dialects.by_name(choices.pick(_LEARNED))
    spec = choices.pick(_SPECS)
    reader = RequestReader(dialect, spec)
    written = dialect.write_request(_observation(choices, dialect.greets))
    assert isinstance(written, bytes)
    kept: list[tuple[Any, Any]] = []
    for number in range(4 + choices.number(4)):
        sent = _changed(choices, written) if number >= 2 and choices.chance(2) else written
        # np.errstate: a cast of a stranger's number may overflow, and is looked at afterwards
        with np.errstate(all="ignore"):
            read = _read(reader, memoryview(bytearray(sent)))
            expected = _read(RequestReader(dialect, spec), memoryview(bytearray(sent)))
        _assert_same(read, expected)
        kept.append((read, expected))
    for read, expected in kept:  # what a later frame changes would show
        _assert_same(read, expected)


def check_replies(data: bytes) -> None:
    """The same for what a client reads."""
    choices = Choices(data)
    dialect = dialects.by_name(choices.pick(_LEARNED))
    reader = ReplyReader(dialect)
    actions = np.zeros(choices.pick(((7,), (32, 7), (500, 60))), choices.pick(("<f4", "<f8", ">f4", "<i8", "|b1")))
    extras = (
        {"scalar": np.float64(2.5), "more": [1.5, {"x": 2.5}], "state": np.arange(9.0)} if choices.chance(2) else {}
    )
    written = dialect.write_reply(ActionChunk(actions, extras=extras), Timing(0.1, 0.2, 0.3, 0.4))
    assert isinstance(written, bytes)
    kept: list[tuple[Any, Any]] = []
    for number in range(4 + choices.number(4)):
        sent = _changed(choices, written) if number >= 2 and choices.chance(2) else written
        with np.errstate(all="ignore"):
            read = _read_reply(reader, memoryview(bytearray(sent)))
            expected = _read_reply(ReplyReader(dialect), memoryview(bytearray(sent)))
        _assert_same(read, expected)
        kept.append((read, expected))
    for read, expected in kept:
        _assert_same(read, expected)


def _read_reply(reader: ReplyReader, frame: memoryview) -> Any:
    try:
        reply = reader.read(frame)
        return reply.actions, reply.timing, reply.fields
    except PolicyserveError as error:
        return f"{type(error).__name__}: {error}"


def _read(reader: RequestReader, frame: memoryview) -> Any:
    try:
        return reader.read(frame)
    except PolicyserveError as error:
        return f"{type(error).__name__}: {error}"


def _changed(choices: Choices, written: bytes) -> bytes:
    """Some bytes exchanged, mostly near the places that say what the frame holds."""
    if choices.chance(6):
        return choices.scribbled(written)
    changed = bytearray(written)
    for _ in range(1 + choices.number(3)):
        changed[choices.number(min(len(changed) - 1, choices.pick((60, 255, len(changed) - 1))))] = choices.number(255)
    return bytes(changed)


def _observation(choices: Choices, has_texts: bool) -> dict[str, Any]:
    side = choices.pick((2, 16, 160))
    observation: dict[str, Any] = {
        "image": np.full((side, side, 3), choices.number(255), np.uint8),
        "obs": np.arange(4).astype(choices.pick(("<f4", "<f8", ">f4", "<i8", "|b1"))),
    }
    if choices.chance(2):
        observation["steps"] = np.array([1, 2], choices.pick(("<i8", "<i4", "<f4", "<u8")))
    if choices.chance(3):
        del observation["image"]
    if has_texts and choices.chance(2):
        observation["images"] = {"high": observation.pop("image", np.zeros((4, 4, 3), np.uint8))}
    if has_texts:
        observation |= {"prompt": "pick it up", "more": [1, "two", {"x": 2.5}], "scalar": np.float32(3)}
    return observation


def _assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key, value in left.items():
            _assert_same(value, right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            _assert_same(one, other)
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
        assert left.flags.writeable
        assert left.flags.aligned
    else:
        assert repr(left) == repr(right)  # NaN is equal to itself here
