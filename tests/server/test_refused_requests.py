"""Bad frames over a real socket: each costs its own session, with a reason, and nobody else anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from policyserve.core.errors import BadObservation, Overloaded
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects import by_name
from tests.server.live import DEADLINE_S, WIRE, Live, answer, ask, frame, packed, request, serving

ECHO4 = PolicySpec("echo4", {"obs": ArraySpec((4,))}, None)
CAMERA = PolicySpec("camera", {"image": ImageSpec(2, 2, dtypes=("float32",)), "obs": ArraySpec((4,))}, None)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving() as live:
        yield live


@pytest.fixture(scope="module")
def with_spec() -> Iterator[Live]:
    with serving(FunctionPolicy(lambda observation: observation["obs"], ECHO4)) as live:
        yield live


def refusal(live: Live, sent: Any) -> tuple[int, str]:
    """The close code and reason that a frame gets."""
    with live.websocket() as peer:
        peer.send(sent)
        return closed(peer)


def closed(peer: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        peer.recv(timeout=DEADLINE_S)
    received = caught.value.rcvd
    assert received is not None, "closed without a close frame"
    assert len(received.reason.encode()) <= 123
    return received.code, received.reason


DEEP: Any = 1
for _ in range(20):
    DEEP = [DEEP]
BAD_FRAMES: dict[str, tuple[Any, list[str]]] = {
    "text": ("hello", ["expected a binary frame", "got a text frame"]),
    "empty": (b"", ["got an empty frame"]),
    "truncated": (frame([1.0])[:-1], ["got a truncated frame"]),
    "garbage": (b"\xc1\xc1", ["expected a MessagePack map", "not MessagePack"]),
    "not a map": (packed([1, 2]), ["expected a map", "got list"]),
    "nested too deep": (packed({"obs": DEEP, "__meta__": {}}), ["expected at most 8 levels of nesting"]),
    "trailing bytes": (frame([1.0]) + b"\x00", ["expected one MessagePack value", "got 1 bytes after it"]),
    "no meta": (packed({"obs": bytes(4)}), ["__meta__: expected a map", "got keys obs"]),
    "meta without the key": (packed({"obs": b"", "__meta__": {"x": 1}}), ["__meta__/obs: expected", "got entries x"]),
    "dtype |O": (request("|O"), ["obs: expected a bool, int, uint or float dtype", "got dtype '|O'"]),
    "dtype V8": (request("V8"), ["obs: expected", "got dtype 'V8'"]),
    "dtype float12": (request("float12"), ["obs: expected", "got dtype 'float12'"]),
    "bfloat16": (request("bfloat16"), ["obs: expected a NumPy dtype", "got bfloat16"]),
    "negative shape": (request(shape=[-2]), ["obs: expected a shape of non-negative ints", "got -2"]),
    "two -1": (request(shape=[-1, -1]), ["obs: expected a shape of non-negative ints", "got -1"]),
    "shape too large": (request(shape=[2**50]), ["obs: expected a shape that fits in memory", str(2**50)]),
    "shape beyond the bytes": (request(shape=[3]), ["obs: expected 12 bytes for float32 (3,)", "got 4 bytes"]),
    "shape below the bytes": (request(shape=[2], data=bytes(12)), ["obs: expected 8 bytes", "got 12 bytes"]),
    "33 dimensions": (request(shape=[1] * 33), ["obs: expected at most 32 dimensions", "got 33"]),
    "a key of a megabyte": (packed({"k" * 10**6: 1, "__meta__": {}}), ["expected a key of at most 128 bytes"]),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "words"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_bad_frame_closes_1008_with_a_reason_and_others_go_on(live: Live, sent: Any, words: list[str]) -> None:
    with live.websocket() as other:
        assert ask(other, 1.0) == 1.0
        code, reason = refusal(live, sent)
        assert code == 1008
        for word in words:
            assert word in reason
        assert ask(other, 2.0) == 2.0
    assert live.answers()


BAD_OBSERVATIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wrong key": ({"obz": np.zeros(4)}, ["obs: expected float32 (4,)", "got keys obz", "did you mean 'obs'"]),
    "wrong shape": ({"obs": np.zeros(3)}, ["obs: expected float32 (4,)", "got float64 (3,)"]),
    "a batch": (
        {"obs": np.zeros((2, 4))},
        ["obs: expected float32 (4,)", "got float64 (2, 4); this policy takes one at a time", "one at a time"],
    ),
}


@pytest.mark.parametrize(("sent", "words"), BAD_OBSERVATIONS.values(), ids=BAD_OBSERVATIONS.keys())
def test_a_bad_observation_closes_1008_with_a_reason(with_spec: Live, sent: dict[str, Any], words: list[str]) -> None:
    code, reason = refusal(with_spec, WIRE.write_request(sent))
    assert code == 1008
    for word in words:
        assert word in reason
    with with_spec.websocket() as other:
        other.send(frame([1, 2, 3, 4]))
        assert answer(other.recv(timeout=DEADLINE_S)) == 1


def test_a_uint8_image_where_a_float_one_is_due_is_refused() -> None:
    policy = FunctionPolicy(lambda observation: observation["obs"], CAMERA)
    with serving(policy) as live:
        code, reason = refusal(live, WIRE.write_request({"image": np.zeros((2, 2, 3), np.uint8), "obs": np.zeros(4)}))
        assert code == 1008
        assert "image: expected float32 image HWC, 2 x 2, got uint8 (2, 2, 3)" in reason


TIGHT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "depth": ({"max_depth": 3}, {"x": [[[[1]]]]}, "expected at most 3 levels of nesting, got more"),
    "items": (
        {"max_items": 90},
        {"x": [0] * 90},
        "at most 90 items (--max-items): list items, and map entries, texts, bins, maps and lists as 6 each, got more",
    ),
    "key": ({"max_key": 16}, {"x" * 17: 1}, "expected a key of at most 16 bytes (--max-key), got 17"),
    "arrays": ({"max_arrays": 1}, {"x": np.zeros(1)}, "expected at most 1 arrays, got more"),
    "image's side": (
        {"max_image_side": 20},
        {"view": np.zeros((1, 21, 3), np.uint8)},
        "view: expected an image of at most 20 pixels a side, got uint8 (1, 21, 3)",
    ),
    "image's pixels": (
        {"max_image_mpixels": 0.0001},
        {"view": np.zeros((10, 11, 3), np.uint8)},
        "view: expected an image of at most 0.0001 million pixels, got uint8 (10, 11, 3)",
    ),
    "text": ({"max_text": 3}, {"prompt": "open"}, "prompt: expected a text of at most 3 characters, got 4"),
}  # fmt: skip


@pytest.mark.parametrize("limit", TIGHT)
@pytest.mark.parametrize("path", ["/openpi", "/"])
def test_a_limit_on_what_a_request_holds_is_a_setting(path: str, limit: str) -> None:
    settings, surplus, told = TIGHT[limit]
    spec = PolicySpec(
        "seen",
        {"obs": ArraySpec((1,)), "view": ImageSpec(optional=True), "prompt": TextSpec(default="")},
        None,
    )
    policy = FunctionPolicy(lambda observation: observation["obs"], spec)
    wire = by_name("openpi")
    obs = {"obs": np.array([7], np.float32)}
    for limits, is_refused in (({}, False), (settings, True)):
        with serving(policy, hello_grace_ms=0.0, **limits) as live, live.websocket(path) as peer:
            peer.recv(timeout=DEADLINE_S)  # the greeting
            peer.send(wire.write_request({**obs, **surplus}))
            answer = peer.recv(timeout=DEADLINE_S)
            if is_refused:
                assert isinstance(answer, str)
                assert answer.endswith(told)
            else:
                assert wire.read_reply(answer).actions == 7
            peer.send(wire.write_request(obs))  # the session goes on
            assert wire.read_reply(peer.recv(timeout=DEADLINE_S)).actions == 7


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (request(">f4", data=np.array([3], ">f4").tobytes()), 3.0),
        (request(shape=[-1], data=np.array([4], "<f4").tobytes()), 4.0),
        (request(shape=None, data=np.array([5], "<f4").tobytes()), 5.0),
        (request("<f2", data=np.array([6], "<f2").tobytes()), 6.0),
        (request("?", data=b"\x07"), 1.0),
    ],
)
def test_an_unusual_spelling_is_served(live: Live, sent: bytes, value: float) -> None:
    with live.websocket() as peer:
        peer.send(sent)
        assert answer(peer.recv(timeout=DEADLINE_S)) == value


def test_nan_in_an_observation_is_the_policys_business() -> None:
    with serving(lambda x: np.isnan(x).astype("f4")) as live, live.websocket() as peer:
        assert ask(peer, np.nan) == 1.0
        assert ask(peer, 0.0) == 0.0


def test_a_nan_action_closes_1011_and_never_reaches_the_wire(live: Live) -> None:
    code, reason = refusal(live, frame([np.nan]))
    assert code == 1011
    assert "NaN" in reason
    assert live.answers()


def test_a_policy_that_raises_closes_1011_without_a_traceback(live: Live) -> None:
    def fall(x: Any) -> Any:
        raise KeyError("the arm is missing \udcff")

    with serving(fall) as falling:
        code, reason = refusal(falling, frame([1.0]))
    assert code == 1011
    assert "KeyError" in reason
    assert "Traceback" not in reason


def test_what_may_succeed_later_closes_1013() -> None:
    def busy(x: Any) -> Any:
        raise Overloaded("the arm is busy")

    with serving(busy) as live:
        assert refusal(live, frame([1.0])) == (1013, "the arm is busy [overloaded]")


def test_a_policys_own_refusal_closes_1008() -> None:
    def picky(x: Any) -> Any:
        raise BadObservation("obs", "more light", "darkness")

    with serving(picky) as live:
        assert refusal(live, frame([1.0])) == (1008, "obs: expected more light, got darkness [bad_observation]")


def test_good_requests_before_a_bad_one_are_answered_first(live: Live) -> None:
    with live.websocket() as peer:
        for number in range(5):
            peer.send(frame([number]))
        peer.send(b"\xc1")
        assert [answer(peer.recv(timeout=DEADLINE_S)) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert closed(peer)[0] == 1008


def test_a_frame_of_a_hundred_megabytes_closes_1009(live: Live) -> None:
    with live.websocket() as peer:
        with suppress(ConnectionClosed):  # the refusal may arrive while it is still being sent
            peer.send(bytes(100_000_000))
        code, reason = closed(peer)
    assert code == 1009
    assert str(64 * 1024 * 1024) in reason
    assert live.answers()


def test_a_frame_of_the_largest_size_is_served_and_one_byte_more_is_not() -> None:
    sent = frame(np.zeros(1000))
    limit = len(sent) / 1024 / 1024
    with serving(lambda x: x[:1], max_frame_mib=limit) as live:
        with live.websocket() as peer:
            peer.send(sent)
            assert answer(peer.recv(timeout=DEADLINE_S)) == 0.0
        assert refusal(live, sent + b"\0")[0] == 1009


def test_another_dialects_frame_is_told_the_path_to_use(live: Live) -> None:
    openpi = {b"__ndarray__": True, b"data": bytes(4), b"dtype": "<f4", b"shape": [1]}
    code, reason = refusal(live, packed({"obs": openpi}))
    assert code == 1008
    assert "/openpi" in reason
