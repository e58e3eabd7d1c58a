"""The dialects, both halves: any message gives a value or a refusal, both decoders agree, what is written is read."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack
import numpy as np

from policyserve import dialects
from policyserve.core.arrays import Placed
from policyserve.core.dialect import has_client, request_writer
from policyserve.core.effects import Answered, Send, Submit
from policyserve.core.errors import BadObservation, Overloaded, PolicyFailed, RemoteError, WireError
from policyserve.core.messages import Reply, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
from policyserve.dialects.unpacking import unpack, unpack_views
from tests.fuzz.choices import Choices
from tests.fuzz.jpegs import SEEDS

SPEC = PolicySpec(
    "fuzzed",
    observation={
        "image": ImageSpec(layouts=("HWC", "CHW", "HW", "1HWC"), dtypes=("uint8", "float"), optional=True),
        "obs": ArraySpec((4,), optional=True),
        "a/b": ArraySpec((None,), "int32", optional=True),
        "prompt": TextSpec(default=""),
        "names": TextListSpec(optional=True),
    },
    action=None,
    max_client_batch=16,
)
_TIMING = Timing(0.1, 0.2, 0.3)
_KEYS = (
    "obs", "image", "a", "b", "a/b", "prompt", "names", "__meta__", "dtype", "shape", "data", "__ndarray__", "nd",
    "__npgeneric__", "type", "kind", "complex", "action", "actions", "predict_action", "latency_ms", "server_timing",
    "",
)  # fmt: skip
_DTYPES = (
    "<f4", "float32", "<f8", ">f4", "|u1", "uint8", "|b1", "<i8", "<u2", "<f2", "|O", "V8", "<M8[s]", "<U3", "<c8",
    "bfloat16", "f4,f4", "(2,)f4", "", "é", 4, None,
)  # fmt: skip
_NUMBERS = (0, 1, -1, 3, 4, 127, 128, 1 << 31, 1 << 62, (1 << 64) - 1, -(1 << 63))
_RAW = (
    b"\xc1",
    b"\xc7\x00\x05",
    b"\xd4\x05x",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
)


def check_messages(data: bytes) -> None:
    """A frame that may be anything, to both halves of every dialect and to a session that does not know its dialect."""
    choices = Choices(data)
    frame = _frame(choices)
    with np.errstate(all="raise"):
        for name in dialects.names():
            _check_halves(name, frame)
        _check_session(frame)
    _check_decoders(frame)


def check_text(data: bytes) -> None:
    """A text frame."""
    text = data.decode("utf-8", "replace")
    for name in dialects.names():
        _check_halves(name, text)
    _check_session(text)


def check_round_trip(data: bytes) -> None:
    """What one half writes the other reads, to the value; in pieces or whole, the same bytes."""
    choices = Choices(data)
    # gr00t makes parts of all that it is given (tests/fuzz/gr00t.py has its own), xpolicylab names an action's columns,
    # and lerobot has joints and pictures alone.
    others = ("gr00t", "xpolicylab", "lerobot")
    spoken = [name for name in dialects.names() if has_client(dialects.by_name(name)) and name not in others]
    dialect = dialects.by_name(choices.pick(spoken))
    keys = list(dict.fromkeys(choices.pick(("obs", "a", "b/c", "é", "x" * 40)) for _ in range(1 + choices.number(3))))
    has_scalars = dialect.name != "vla_eval"  # there they are plain numbers
    observation: dict[str, Any] = {key: _array(choices) if has_scalars else np.array(_array(choices)) for key in keys}
    if dialect.name != "vibe_rl":
        observation["prompt"] = choices.some_bytes(9).decode("utf-8", "replace")
        observation["nested"] = {"deep": np.array(_array(choices)), "list": ["a", 1, None, True]}
    written = dialect.write_request(observation)
    assert isinstance(written, bytes)
    assert b"".join(map(bytes, request_writer(dialect)(observation))) == written
    for frame in (written, memoryview(bytearray(written))):
        _assert_same(dialect.read_request(frame).observation, observation)
    actions = _array(choices)
    reply = dialect.write_reply(ActionChunk(actions), _TIMING)
    if dialect.name == "starvla":  # whose answers have three axes at least
        actions = np.atleast_2d(actions)
    if dialect.name == "vllm_omni" or (dialect.name == "vla_eval" and actions.dtype.kind == "f"):
        actions = actions.astype(np.float32)
    _assert_same(dialect.read_reply(reply).actions, actions)


def _check_halves(name: str, frame: bytes | str) -> None:
    dialect = dialects.by_name(name)
    with suppress(WireError, BadObservation):
        request = dialect.read_request(frame)
        assert isinstance(request, Request)
        SPEC.validate(request.observation)
    with suppress(WireError, RemoteError):
        assert isinstance(dialect.read_reply(frame), Reply)
    with suppress(WireError, RemoteError):
        dialect.read_greeting(frame)


def _check_session(frame: bytes | str) -> None:
    """Three such frames in a row: each is submitted or refused, and answers go out in their order."""
    session = Session(None, choice=dialects.Auto(), max_pending=2)
    effects = [*session.serve(SPEC, {}), *(effect for _ in range(3) for effect in session.receive(_own(frame), 0.0))]
    submitted = [effect for effect in effects if isinstance(effect, Submit)]
    outcomes = (Answered(ActionChunk(np.zeros(2)), 0.0, 0.1), PolicyFailed("raised"), Overloaded("full", 5.0))
    for number, submit in enumerate(reversed(submitted)):
        effects += session.answer(submit.ticket, outcomes[number % 3], 0.2)
    assert session.closed or session.pending == 0
    assert sum(isinstance(effect, Send) for effect in effects) <= 5
    assert all(type(effect).__name__ != "Failed" or not _is_ours(effect.error) for effect in effects)  # type: ignore[union-attr]


def _is_ours(error: Exception) -> bool:
    return "reading the request failed" in str(error)


def _own(frame: bytes | str) -> memoryview | str:
    return frame if isinstance(frame, str) else memoryview(bytearray(frame))


def _check_decoders(frame: bytes) -> None:
    """The C decoder, which small messages and long lists of numbers are left to, and our own read the same language."""
    for texts in (True, False):
        try:
            plain = repr(_without_views(unpack(frame, texts=texts)))
        except WireError:
            plain = "refused"
        placed: list[Placed] = []
        try:
            viewed = repr(_without_views(unpack_views(memoryview(frame), texts=texts, placed=placed)))
        except WireError:
            viewed = "refused"
        assert plain == viewed, (frame, texts)


def _without_views(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_views(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_views(inner) for inner in value]
    return bytes(value) if isinstance(value, (memoryview, bytes)) or hasattr(value, "placed") else value


def _frame(choices: Choices) -> bytes:
    if choices.chance(6):
        return choices.rest()
    frame = _packed(choices, _message(choices))
    return choices.scribbled(frame) if choices.chance(3) else frame


def _message(choices: Choices) -> Any:
    kind = choices.number(3)
    if kind == 0:  # vibe_rl's
        entries = {key: _meta(choices) for key in ("obs", "a")}
        meta = msgpack.packb(entries) if choices.chance(3) else entries
        return {"obs": choices.pick((bytes(16), bytes(4), b"", "text", 4)), "__meta__": meta}
    return {choices.pick(_KEYS): _value(choices, 0) for _ in range(1 + choices.number(4))}


def _meta(choices: Choices) -> Any:
    return {"dtype": choices.pick(_DTYPES), "shape": _shape(choices)}


def _shape(choices: Choices) -> Any:
    return choices.pick(([4], [1], [], 4, -1, None, [-1], [2, -1], [0], [0, 7], [1 << 40] * 3, ["4"], [1] * 40, [2, 2]))


def _value(choices: Choices, depth: int) -> Any:
    kind = choices.number(8) if depth < 10 else 8
    if kind == 0:
        return {choices.pick(_KEYS): _value(choices, depth + 1) for _ in range(choices.number(3))}
    if kind == 1:
        return [_value(choices, depth + 1) for _ in range(choices.number(3))]
    if kind == 2:
        name, more = choices.pick((("__ndarray__", {}), ("nd", {"kind": choices.pick((b"", b"O", b"V"))})))
        array = {name: choices.pick((True, False)), "shape": _shape(choices), "data": choices.pick((bytes(16), b"", 7))}
        return {**array, **more, choices.pick(("dtype", "type")): choices.pick(_DTYPES)}
    if kind == 3:
        return {"__npgeneric__": True, "data": choices.pick((*_NUMBERS, 1.5, "x")), "dtype": choices.pick(_DTYPES)}
    if kind == 4:
        return choices.pick(_NUMBERS)
    if kind == 5:
        return choices.some_bytes(20)
    if kind == 6:
        return choices.some_bytes(8).decode("latin-1")
    if kind == 7:
        form, data = choices.pick(("jpeg", "png", 3)), choices.pick((*SEEDS, b"", "text"))
        return {"__image__": choices.pick((True, False)), "format": form, "data": data, "shape": _shape(choices)}
    return choices.pick((None, True, 1.5, float("nan"), bytes(2000), "x" * 300))


def _packed(choices: Choices, message: Any) -> bytes:
    """The message with bin or text keys, and now and then with what is no MessagePack at its end."""
    named = _with_bin_keys(message) if choices.chance(2) else message
    packed = msgpack.packb(named)
    assert isinstance(packed, bytes)
    return packed + choices.pick(_RAW) if choices.chance(12) else packed


def _with_bin_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.encode("utf-8", "surrogatepass"): _with_bin_keys(inner) for key, inner in value.items()}
    return [_with_bin_keys(inner) for inner in value] if isinstance(value, list) else value


def _array(choices: Choices) -> Any:
    dtype = np.dtype(choices.pick(("<f4", "<f8", ">f4", "|u1", "|b1", "<i8", "<i4", "<u2", "<f2")))
    shape = choices.pick(((), (4,), (0,), (0, 7), (2, 3), (1,), (40, 40), (3, 1, 2), (70, 70)))
    raw = (choices.some_bytes(64) + bytes(range(64))) * 700
    count = int(np.prod(shape))
    made = np.frombuffer(raw[: count * dtype.itemsize], dtype).reshape(shape)
    made = made.view(np.uint8) != 0 if dtype.kind == "b" else np.nan_to_num(made)
    return np.asfortranarray(made) if choices.chance(4) and made.ndim > 1 else made


def _assert_same(read: Any, sent: Any) -> None:
    if isinstance(sent, dict):
        assert list(read) == list(sent)
        for key, value in sent.items():
            _assert_same(read[key], value)
    elif isinstance(sent, (np.ndarray, np.generic)):
        assert np.asarray(read).dtype == sent.dtype.newbyteorder("=")
        assert np.shape(read) == sent.shape
        assert np.array_equal(read, sent)
    else:
        assert read == sent
