"""A layout must give what decoding gives, whatever the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve import dialects
from policyserve.core.arrays import Placed
from policyserve.core.dialect import ZeroCopyDialect
from policyserve.core.errors import BadObservation, PolicyserveError, RemoteError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message, Reply, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.reading import ReplyReader, RequestReader, learn_layout, learn_reply_layout
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec, ValidObservation
from policyserve.dialects.marked_arrays import OPENPI
from policyserve.dialects.openpi import OpenPI

OPEN = PolicySpec("open", observation=None, action=None)
LIBERO = PolicySpec(
    "libero",
    observation={
        "observation/image": ImageSpec(),
        "observation/state": ArraySpec((8,)),
        "steps": ArraySpec((2,), "int32", optional=True),
        "prompt": TextSpec(default="do it"),
    },
    action=None,
    max_client_batch=4,
)
NESTED = PolicySpec(
    "aloha", observation={"images": {"high": ImageSpec()}, "state": ArraySpec((3,), "float64")}, action=None
)

ALIASED = PolicySpec(
    "aliased",
    observation={"picture": ImageSpec(), "state": ArraySpec((8,))},
    action=None,
    aliases={"observation/image": "picture", "observation/state": "state"},
)


class Counting(OpenPI):
    """A dialect that counts what it was asked to read; all else that it has is nobody's business here."""

    def __init__(self, dialect: ZeroCopyDialect) -> None:
        self._dialect = dialect
        self.read = 0

    def read_request(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Request:
        self.read += 1
        return self._dialect.read_request(message, limits, placed)


def named(name: str) -> ZeroCopyDialect:
    dialect = dialects.by_name(name)
    assert isinstance(dialect, ZeroCopyDialect)
    return dialect


def message(dialect: str, observation: Mapping[str, Any]) -> memoryview:
    frame = dialects.by_name(dialect).write_request(observation)
    assert isinstance(frame, bytes)
    return memoryview(bytearray(frame))


def libero(rng: np.random.Generator, **changes: Any) -> dict[str, Any]:
    return {
        "observation/image": rng.integers(0, 255, (32, 48, 3), np.uint8),
        "observation/state": rng.normal(size=8),  # float64, which the spec has cast
        "steps": rng.integers(0, 9, 2),  # int64, whose values the cast looks at
        "prompt": "pick up the block",
        "extra": 3,
        **changes,
    }


def aloha(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "images": {"high": rng.integers(0, 255, (64, 64, 3), np.uint8)},
        "state": rng.normal(size=3),
        "more": {"list": [1, "two"], "is": rng.normal(size=4) > 0, "big": rng.normal(size=2).astype(">f4")},
    }


def cartpole(rng: np.random.Generator) -> dict[str, Any]:
    return {"obs": rng.normal(size=4).astype(np.float32)}


def assert_equal(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key, value in left.items():
            assert_equal(value, right[key])
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.flags.writeable
        assert left.flags.aligned
        np.testing.assert_array_equal(left, right)
    else:
        assert left == right


def read_afresh(dialect: str, spec: PolicySpec, frame: memoryview) -> ValidObservation:
    return RequestReader(named(dialect), spec).read(memoryview(bytearray(frame)))


CASES = [
    ("openpi", OPEN, libero),
    ("openpi", LIBERO, libero),
    ("wall_x", LIBERO, libero),
    ("openpi", NESTED, aloha),
    ("wall_x", OPEN, aloha),
    ("openpi", ALIASED, libero),
    ("vibe_rl", OPEN, cartpole),
    ("openpi", OPEN, cartpole),
]


@pytest.mark.parametrize(("dialect", "spec", "make"), CASES)
def test_frames_alike_are_read_without_the_dialect(dialect: str, spec: PolicySpec, make: Any) -> None:
    rng = np.random.default_rng(0)
    counting = Counting(named(dialect))
    reader = RequestReader(counting, spec)
    for _ in range(8):
        frame = message(dialect, make(rng))
        valid = reader.read(frame)
        expected = read_afresh(dialect, spec, frame)
        assert_equal(valid.observation, expected.observation)
        assert valid[1:] == expected[1:]
    assert counting.read == 3  # the first two, and the second once more to learn its layout


@pytest.mark.parametrize(("dialect", "spec", "make"), CASES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_other_byte_has_the_frame_decoded(dialect: str, spec: PolicySpec, make: Any, data: st.DataObject) -> None:
    rng = np.random.default_rng(1)
    frame = message(dialect, make(rng))
    layout = learn_layout(named(dialect), spec, frame, size=read_afresh(dialect, spec, frame).footprint)
    assert layout is not None
    changed = memoryview(bytearray(frame))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    found = outcome(lambda: layout.read(changed))
    if found is not None:
        expected = outcome(lambda: read_afresh(dialect, spec, changed))
        if isinstance(expected, str) or isinstance(found, str):
            assert found == expected
        else:
            assert_equal(found.observation, expected.observation)
            assert found[1:] == expected[1:]


def outcome(read: Any) -> Any:
    try:
        return read()
    except PolicyserveError as error:
        return f"{type(error).__name__}: {error}"


def test_a_value_that_cannot_be_cast_is_refused_as_before() -> None:
    rng = np.random.default_rng(2)
    reader = RequestReader(named("openpi"), LIBERO)
    for _ in range(3):
        reader.read(message("openpi", libero(rng)))
    bad = message("openpi", libero(rng, steps=np.array([1, 1 << 40])))
    with pytest.raises(BadObservation, match="steps") as learned:
        reader.read(bad)
    with pytest.raises(BadObservation) as fresh:
        read_afresh("openpi", LIBERO, bad)
    assert str(learned.value) == str(fresh.value)


def test_what_a_policy_writes_into_one_observation_is_in_no_other() -> None:
    rng = np.random.default_rng(3)
    reader = RequestReader(named("openpi"), OPEN)
    observation = aloha(rng)
    for _ in range(4):
        valid = reader.read(message("openpi", observation))
        assert_equal(valid.observation, observation | {"more": read_afresh_of(observation)["more"]})
        valid.observation["images"]["high"][:] = 0
        valid.observation["state"][:] = 0
        valid.observation["more"]["list"].clear()
        valid.observation["more"]["is"][:] = False
        del valid.observation["more"]["big"]


def read_afresh_of(observation: Mapping[str, Any]) -> Any:
    return read_afresh("openpi", OPEN, message("openpi", observation)).observation


def test_a_client_whose_every_frame_differs_is_not_learned_for_ever() -> None:
    rng = np.random.default_rng(4)
    counting = Counting(named("openpi"))
    reader = RequestReader(counting, OPEN)
    frames = 200
    for number in range(frames):
        frame = message("openpi", libero(rng, prompt=f"step {number:06}"))
        assert reader.read(frame).observation["prompt"] == f"step {number:06}"
    assert counting.read <= frames + 4


def test_a_client_that_changes_its_frames_is_learned_anew() -> None:
    rng = np.random.default_rng(5)
    counting = Counting(named("openpi"))
    reader = RequestReader(counting, OPEN)
    for prompt in ("first", "second one", "third"):
        for _ in range(100):
            valid = reader.read(message("openpi", libero(rng, prompt=prompt)))
            assert valid.observation["prompt"] == prompt
    assert counting.read == 3 * 3


def test_frames_that_are_not_the_sessions_own_buffer_are_decoded() -> None:
    """Bytes may be anybody's: views of them could not be written to."""
    reader = RequestReader(named("vibe_rl"), OPEN)
    frame = bytes(message("vibe_rl", {"obs": np.arange(4.0)}))
    for _ in range(4):
        array: Any = reader.read(frame).observation
        assert array.flags.writeable


# Replies


class CountingReplies(Counting):
    """The same for a client."""

    def reply_fields(self, message: Message, placed: list[Placed] | None = None) -> dict[str, Any]:
        self.read += 1
        return self._dialect.reply_fields(message, placed)

    def read_reply(self, message: Message) -> Reply:
        return self.reply_of(self.reply_fields(message))

    def reply_of(self, fields: dict[str, Any]) -> Reply:
        return self._dialect.reply_of(fields)


def reply(dialect: str, rng: np.random.Generator, prev_total_ms: float | None = 1.5) -> memoryview:
    queue_ms, infer_ms, total_ms = rng.random(3)
    extras = {"state": rng.normal(size=300), "hint": "slow", "is": rng.normal(size=3) > 0, "also": [1, {"two": 2.5}]}
    chunk = ActionChunk(rng.normal(size=(32, 7)).astype(np.float32), extras=extras)
    return own(dialects.by_name(dialect).write_reply(chunk, Timing(queue_ms, infer_ms, total_ms, prev_total_ms)))


def plain_reply(dialect: str, rng: np.random.Generator, prev_total_ms: float | None = 1.5) -> memoryview:
    chunk = ActionChunk(rng.integers(0, 9, 7))
    return own(
        dialects.by_name(dialect).write_reply(chunk, Timing(rng.random(), rng.random(), rng.random(), prev_total_ms))
    )


def foreign_reply(dialect: str, rng: np.random.Generator, prev_total_ms: float | None = 1.5) -> memoryview:
    """As openpi's own server writes it."""
    timing = {"infer_ms": rng.random(), "prev_total_ms": rng.random()}
    policy_timing = {"infer_ms": rng.random()}
    actions = rng.normal(size=(10, 32))
    written = {
        "state": rng.normal(size=32),
        "actions": actions,
        "policy_timing": policy_timing,
        "server_timing": timing,
    }
    return own(OPENPI.pack(written | {"count": np.float64(2.5)}))


def own(frame: Message) -> memoryview:
    assert isinstance(frame, bytes)
    return memoryview(bytearray(frame))


def read_reply_afresh(dialect: str, frame: memoryview) -> Reply:
    return dialects.by_name(dialect).read_reply(memoryview(bytearray(frame)))


def assert_same_reply(found: Reply, expected: Reply) -> None:
    assert_equal(dict(found.fields), dict(expected.fields))
    assert_equal(found.actions, expected.actions)
    assert_equal(found.timing, expected.timing)


LEARNED = [name for name in dialects.names() if isinstance(dialects.by_name(name), ZeroCopyDialect)]
REPLIES = [
    *((dialect, make) for dialect in LEARNED for make in (reply, plain_reply)),
    ("openpi", foreign_reply),
]


@pytest.mark.parametrize(("dialect", "make"), REPLIES)
def test_replies_alike_are_read_without_the_dialect(dialect: str, make: Any) -> None:
    """They differ in their arrays' data and in the times of their timing; the first has one time less."""
    rng = np.random.default_rng(7)
    counting = CountingReplies(named(dialect))
    reader = ReplyReader(counting)
    for number in range(9):
        frame = make(dialect, rng, prev_total_ms=1.0 if number else None)
        assert_same_reply(reader.read(frame), read_reply_afresh(dialect, frame))
    assert counting.read <= 4  # the first, two more, and the second of those once more to learn its layout


@pytest.mark.parametrize(("dialect", "make"), REPLIES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_other_byte_has_the_reply_decoded(dialect: str, make: Any, data: st.DataObject) -> None:
    counting, frame = named(dialect), make(dialect, np.random.default_rng(8))
    layout = learn_reply_layout(counting, frame)
    assert layout is not None
    changed = memoryview(bytearray(frame))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    fields = layout.read(changed)
    if fields is not None:
        assert repr(fields) == repr(
            counting.reply_fields(memoryview(bytearray(changed)))
        )  # NaN is equal to itself here
        assert_same_bytes(fields, counting.reply_fields(memoryview(bytearray(changed))))


def assert_same_bytes(found: Any, expected: Any) -> None:
    """Arrays of any numbers, NaN among them."""
    if isinstance(found, dict):
        for key, value in found.items():
            assert_same_bytes(value, expected[key])
    elif isinstance(found, np.ndarray):
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@pytest.mark.parametrize(("dialect", "make"), REPLIES)
def test_what_a_program_writes_into_one_reply_is_in_no_other(dialect: str, make: Any) -> None:
    frame, reader = make(dialect, np.random.default_rng(9)), ReplyReader(named(dialect))
    expected = read_reply_afresh(dialect, frame)
    for _ in range(5):
        found = reader.read(memoryview(bytearray(frame)))
        assert_same_reply(found, expected)
        found.actions[:] = 0
        fields: Any = found.fields
        fields.get("also", []).clear()
        fields.get("server_timing", {}).clear()
        fields.clear()


def test_a_replys_actions_are_the_same_array_among_its_fields() -> None:
    reader, rng = ReplyReader(named("openpi")), np.random.default_rng(10)
    for _ in range(4):
        found = reader.read(reply("openpi", rng))
        assert found.actions is found["actions"]
        assert found.timing is found["server_timing"]


def test_an_error_among_replies_alike_is_raised() -> None:
    reader, rng = ReplyReader(named("openpi")), np.random.default_rng(11)
    for _ in range(4):
        reader.read(reply("openpi", rng))
    with pytest.raises(RemoteError, match="the arm fell off"):
        reader.read("policy_failed: the arm fell off")
    assert_same_reply(
        reader.read(reply("openpi", np.random.default_rng(12))),
        read_reply_afresh("openpi", reply("openpi", np.random.default_rng(12))),
    )


def test_a_float_of_a_request_is_validated_each_time() -> None:
    """A policy's spec may refuse a number for its value; a reply's floats are the program's to judge."""
    rng = np.random.default_rng(13)
    counting = Counting(named("openpi"))
    reader = RequestReader(counting, OPEN)
    for number in range(6):
        valid = reader.read(message("openpi", libero(rng, extra=number + 0.5)))
        assert valid.observation["extra"] == number + 0.5
    assert counting.read >= 6
