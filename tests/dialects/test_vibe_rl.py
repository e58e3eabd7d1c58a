"""vibe_rl's bytes: what the original programs wrote is read, and what we write is what they read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.errors import (
    BadObservation,
    DeadlineExceeded,
    PolicyFailed,
    PolicyserveError,
    Refusal,
    WireError,
    WrongDialect,
)
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.dialects.vibe_rl import VibeRL
from tests.shared import shared_path

DIALECT = VibeRL()
X = np.array([0, 1, 2], np.float32)
RAW = X.tobytes()
ANY_BATCH = 1_000

CARTPOLE = PolicySpec("cartpole", {"obs": ArraySpec((4,))}, ArraySpec((), "int32"), max_client_batch=ANY_BATCH)
IMAGE = PolicySpec(
    "image",
    {"state": ArraySpec((14,)), "image": ImageSpec(64, 64, dtypes=("uint8", "float32"))},
    ArraySpec((14,)),
    max_client_batch=ANY_BATCH,
)


def golden_frames() -> Iterator[tuple[str, dict[str, Any], Path]]:
    for index in sorted(shared_path("vibe_rl", "golden").glob("*/frames/index.json")):
        for entry in json.loads(index.read_text()):
            yield index.parts[-3], entry, index.parent


def frame_of(entry: dict[str, Any], folder: Path) -> bytes | str:
    data = (folder / entry["request"]).read_bytes()
    return data.decode() if entry["text_frame"] else data


def request(dtype: Any = "<f4", shape: Any = (3,), data: Any = RAW, key: Any = b"obs") -> bytes:
    frame = msgpack.packb({key: data, b"__meta__": {key: {b"dtype": dtype, b"shape": shape}}})
    assert isinstance(frame, bytes)
    return frame


def packed(message: Any) -> bytes:
    frame = msgpack.packb(message)
    assert isinstance(frame, bytes)
    return frame


def obs(frame: bytes) -> Any:
    return DIALECT.read_request(frame).observation["obs"]


def test_a_request_is_the_originals_byte_for_byte() -> None:
    lines = shared_path("design", "golden_frames.txt").read_text().splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("## vibe_rl request obs"))
    assert DIALECT.write_request({"obs": X}) == bytes.fromhex(lines[at + 1])


def test_every_good_golden_request_is_read() -> None:
    seen = 0
    for name, entry, folder in golden_frames():
        if entry["close_code"] is not None:
            continue
        seen += 1
        got = DIALECT.read_request(frame_of(entry, folder))
        assert got.bare == (name != "image_cnn_dict"), (name, entry["kind"])
        assert all(isinstance(value, np.ndarray) for value in got.observation.values())
    assert seen > 100


def test_golden_requests_carry_golden_observations() -> None:
    exact = {"single_f32", "single_f64", "nested_packed_meta", "shape_minus1", "single_str_keys_float32_name"}
    folders = {folder for name, _, folder in golden_frames() if name != "image_cnn_dict"}
    golden = {folder: np.load(folder.parent / "golden.npz")["obs"] for folder in folders}
    for name, entry, folder in golden_frames():
        if entry["kind"] in exact and name != "image_cnn_dict":
            got = DIALECT.read_request(frame_of(entry, folder)).observation["obs"].astype("f4")
            assert (golden[folder] == got).all(axis=1).any(), (name, entry["kind"])


# What the original dropped without a word: which of these we refuse, where, and which we serve.
REFUSED = {
    "err_bad_dtype": WireError,
    "err_dict_obs": BadObservation,
    "err_empty": WireError,
    "err_garbage": WireError,
    "err_image_mode": BadObservation,
    "err_meta_lacks_key": WireError,
    "err_missing_state": BadObservation,
    "err_no_meta": WireError,
    "err_not_map": WireError,
    "err_object_dtype": WireError,
    "err_shape_mismatch": WireError,
    "err_text_frame": WireError,
    "err_trailing": WireError,
    "err_wrong_dim": BadObservation,
}


def test_every_bad_golden_request_is_refused_with_a_reason_but_for_big_endian() -> None:
    kinds: set[str] = set()
    for name, entry, folder in golden_frames():
        if entry["close_code"] is None or entry["request"] is None:
            continue
        kind = entry["kind"]
        kinds.add(kind)
        spec = IMAGE if name == "image_cnn_dict" else CARTPOLE
        frame = frame_of(entry, folder)
        if kind in REFUSED:
            with pytest.raises(REFUSED[kind]) as caught:
                spec.validate(DIALECT.read_request(frame).observation)
            assert "expected" in str(caught.value)
        else:
            spec.validate(DIALECT.read_request(frame).observation)
    assert kinds - REFUSED.keys() == {"err_big_endian", "dict_image_first_order"}


@pytest.mark.parametrize(
    "actions",
    [np.array(1, np.int32), np.arange(6, dtype=">f4").reshape(2, 3).T, np.zeros((0, 7)), np.ones((64, 2048), np.bool_)],
    ids=["one number", "big-endian, by columns", "empty", "large"],
)
def test_a_reply_put_together_is_what_packing_it_whole_gives(actions: Any) -> None:
    little = np.ascontiguousarray(actions).astype(actions.dtype.newbyteorder("<")).reshape(actions.shape)
    meta = {b"dtype": little.dtype.str, b"shape": list(little.shape)}
    whole = msgpack.packb({b"action": little.tobytes(), b"__meta__": {b"action": meta, b"latency_ms": 3.75}})
    assert DIALECT.write_reply(ActionChunk(actions), Timing(1.25, 2.5, 3.75)) == whole


def test_every_golden_reply_is_read_and_written_back_the_same() -> None:
    seen = 0
    for name, entry, folder in golden_frames():
        if entry["response"] is None:
            continue
        seen += 1
        data = (folder / entry["response"]).read_bytes()
        reply = DIALECT.read_reply(data)
        assert reply.actions.dtype.str == entry["dtype"], name
        assert list(reply.actions.shape) == entry["shape"]
        assert reply.timing["latency_ms"] == struct.unpack(">d", data[-8:])[0]
        timing = Timing(0.0, 0.0, reply.timing["latency_ms"])
        assert DIALECT.write_reply(ActionChunk(reply.actions), timing) == data
    assert seen > 100


# Requests


def test_the_one_key_obs_is_a_bare_array_and_any_other_is_a_map() -> None:
    assert DIALECT.read_request(DIALECT.write_request({"obs": X})).bare
    assert not DIALECT.read_request(DIALECT.write_request({"state": X})).bare
    both = DIALECT.read_request(DIALECT.write_request({"obs": X, "image": X}))
    assert not both.bare
    assert list(both.observation) == ["obs", "image"]


def test_big_endian_is_served() -> None:
    got = obs(request(">f4", [3], X.astype(">f4").tobytes()))
    assert got.tolist() == [0, 1, 2]
    assert got.dtype.isnative


@pytest.mark.parametrize("shape", [[3], 3, None, [-1], [1, -1, 3], [3, -1]])
def test_a_shape_may_be_a_list_an_int_nil_or_hold_one_minus_one(shape: Any) -> None:
    np.testing.assert_array_equal(obs(request(shape=shape)).ravel(), X)


@pytest.mark.parametrize(
    "shape",
    [[-1, -1], [-2], [2, -1], [0, -1], [-1, 0], [-3, -1], [-1, -3], [4], [], [3.0], ["3"], "3", {}, [True, 3],
     [-1] + [1] * 40, [-1, 2**63, 2**63], [-1.0], [[3]]],
)  # fmt: skip
def test_any_other_shape_is_refused(shape: Any) -> None:
    with pytest.raises(WireError) as caught:
        DIALECT.read_request(request(shape=shape))
    assert caught.value.path == "obs"


@pytest.mark.parametrize("dtype", ["|O", "V8", "float12", "bfloat16", "<U4", "c8", "", None, 4, ["<f4"], {"a": 1}])
def test_a_dtype_that_is_no_number_is_refused(dtype: Any) -> None:
    with pytest.raises(WireError) as caught:
        DIALECT.read_request(request(dtype))
    assert caught.value.path == "obs"


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ([1, 2], ""),
        (1, ""),
        (None, ""),
        ({}, "__meta__"),
        ({"obs": X.tobytes()}, "__meta__"),
        ({"obs": X.tobytes(), "__meta__": None}, "__meta__"),
        ({"obs": X.tobytes(), "__meta__": []}, "__meta__"),
        ({"obs": X.tobytes(), "__meta__": {}}, "__meta__/obs"),
        ({"obs": X.tobytes(), "__meta__": {"obs": None}}, "__meta__/obs"),
        ({"obs": X.tobytes(), "__meta__": {"obs": {"dtype": "<f4"}}}, "__meta__/obs"),
        ({"obs": X.tobytes(), "__meta__": {"obs": {"shape": [3]}}}, "__meta__/obs"),
        ({"obs": [0, 1, 2], "__meta__": {"obs": {"dtype": "<f4", "shape": [3]}}}, "obs"),
        ({"obs": None, "__meta__": {"obs": {"dtype": "<f4", "shape": [3]}}}, "obs"),
        ({"__meta__": {"obs": {"dtype": "<f4", "shape": [3]}}}, ""),
        ({1: X.tobytes(), "__meta__": {}}, ""),
        ({"__meta__": b"\xc1"}, "__meta__"),
        ({"__meta__": packed([1])}, "__meta__"),
    ],
)
def test_a_message_of_another_form_is_refused_where_it_is_wrong(message: Any, path: str) -> None:
    with pytest.raises(WireError) as caught:
        DIALECT.read_request(packed(message))
    assert caught.value.path == path


def test_a_meta_entry_without_data_is_ignored() -> None:
    meta = {"obs": {"dtype": "<f4", "shape": [3]}, "other": {"dtype": "|O", "shape": "?"}}
    assert list(DIALECT.read_request(packed({"obs": X.tobytes(), "__meta__": meta})).observation) == ["obs"]


def test_a_frame_of_another_dialect_names_its_path() -> None:
    openpi = {b"__ndarray__": True, b"data": X.tobytes(), b"dtype": "<f4", b"shape": [3]}
    with pytest.raises(WrongDialect, match="/openpi"):
        DIALECT.read_request(packed({"obs": openpi}))


@pytest.mark.parametrize(
    "value",
    [
        "text",
        b"bytes",
        None,
        {"nested": X},
        ["a", "b"],
        np.array(["a"]),
        np.array([None]),
        np.array([1j]),
        [[1], [1, 2]],
    ],
)
def test_what_the_wire_cannot_carry_is_refused_before_it_is_sent(value: Any) -> None:
    with pytest.raises(WireError) as caught:
        DIALECT.write_request({"obs": value})
    assert caught.value.path == "obs"


def test_an_observation_cannot_take_the_place_of_the_meta_map() -> None:
    with pytest.raises(WireError, match="__meta__"):
        DIALECT.write_request({"__meta__": X})


@pytest.mark.parametrize(
    "value", [1, 1.5, True, [1, 2], np.float32(1), np.zeros((2, 0)), np.asfortranarray(np.eye(3)[:2])]
)
def test_numbers_lists_and_arrays_make_the_round_trip(value: Any) -> None:
    np.testing.assert_array_equal(obs(bytes(DIALECT.write_request({"obs": value}))), np.asarray(value))  # type: ignore[arg-type]


# Replies


@pytest.mark.parametrize(
    "actions", [np.int32(1), np.zeros((0, 2), "f4"), np.arange(6, dtype="f4").reshape(2, 3), np.array([1.5], ">f8")]
)
def test_actions_make_the_round_trip(actions: Any) -> None:
    reply = DIALECT.read_reply(DIALECT.write_reply(ActionChunk(np.asarray(actions)), Timing(1, 2, 3.5)))
    np.testing.assert_array_equal(reply.actions, actions)
    assert reply.timing == {"latency_ms": 3.5}
    assert set(reply) == {"action", "latency_ms"}
    assert reply["action"] is reply.actions


def test_a_reply_without_an_action_is_refused() -> None:
    with pytest.raises(WireError, match="state"):
        DIALECT.read_reply(DIALECT.write_request({"state": X}))


def test_an_unexpected_greeting_is_refused() -> None:
    with pytest.raises(WireError):
        DIALECT.read_greeting(b"\x80")
    assert DIALECT.greeting({"any": "thing"}) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [(WireError("obs", "a", "b"), 1008), (DeadlineExceeded("late"), 1013), (PolicyFailed("bad"), 1011)],
)
def test_an_error_closes_without_a_frame(error: PolicyserveError, code: int) -> None:
    reply = DIALECT.write_error(error, detail="a traceback")
    assert (reply.message, reply.close_code) == (None, code)
    assert "traceback" not in reply.close_reason
    if isinstance(error, Refusal):
        assert reply.close_reason == "obs: expected a, got b [bad_frame]"
