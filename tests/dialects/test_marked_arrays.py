"""openpi's and msgpack_numpy's spellings of arrays: golden bytes, and what strangers forge."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policyserve.core.errors import WireError
from policyserve.core.messages import Request
from policyserve.dialects import by_name
from policyserve.dialects.marked_arrays import MSGPACK_NUMPY, OPENPI, Spelling
from policyserve.dialects.recognition import spelling_of
from policyserve.dialects.unpacking import unpack
from tests.shared import shared_path

SPELLINGS = [OPENPI, MSGPACK_NUMPY]
GOLDEN = {
    "openpi array": (OPENPI, {"a": np.arange(3, dtype=np.float32)}),
    "openpi scalar": (OPENPI, np.float32(1.5)),
    "openpi metadata {}": (OPENPI, {}),
    "msgpack_numpy(PyPI) array": (MSGPACK_NUMPY, {"a": np.arange(3, dtype=np.float32)}),
    "msgpack_numpy scalar": (MSGPACK_NUMPY, np.float32(1.5)),
    "msgpack_numpy int64 scalar": (MSGPACK_NUMPY, np.int64(7)),
}


def golden_frame(title: str) -> bytes:
    """A frame of golden_frames.txt, found by the beginning of its title."""
    text = shared_path("design", "golden_frames.txt").read_text()
    found = re.search(rf"^## {re.escape(title)}.*\n([0-9a-f ]+)$", text, re.MULTILINE)
    assert found, title
    return bytes.fromhex(found.group(1))


def packed(value: Any) -> bytes:
    frame: Any = msgpack.packb(value)
    return frame


def read(spelling: Spelling, frame: bytes) -> Any:
    return spelling.unmark(unpack(frame, texts=True))


@pytest.mark.parametrize("title", GOLDEN)
def test_golden_frames_are_written_and_read_to_the_byte(title: str) -> None:
    spelling, value = GOLDEN[title]
    frame = golden_frame(title)
    assert spelling.pack(value) == frame
    back = read(spelling, frame)
    np.testing.assert_equal(back, value)
    arrays = (back["a"], value["a"]) if isinstance(value, dict) and value else (back, value)
    assert getattr(arrays[0], "dtype", None) == getattr(arrays[1], "dtype", None)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.name)
@given(
    array=hnp.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "<f2", "|u1", "|b1", "<i4", ">i8", "<u2"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_any_array_of_numbers_survives_the_way_there_and_back(spelling: Spelling, array: np.ndarray[Any, Any]) -> None:
    back = read(spelling, spelling.pack({"a": array}))["a"]
    np.testing.assert_array_equal(back, array)
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.flags.writeable


def test_a_fortran_ordered_array_arrives_in_its_own_order() -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    for spelling in SPELLINGS:
        np.testing.assert_array_equal(read(spelling, spelling.pack({"a": array}))["a"], array)


def test_marker_keys_may_be_texts_too() -> None:
    data = np.arange(3, dtype="<f4").tobytes()
    openpi = {"__ndarray__": True, "data": data, "dtype": "<f4", "shape": [3]}
    wall_x = {"nd": True, "type": "<f4", "kind": "", "shape": [3], "data": data}
    for spelling, value in ((OPENPI, openpi), (MSGPACK_NUMPY, wall_x)):
        assert read(spelling, packed({"a": value}))["a"].tolist() == [0, 1, 2]


FORGED: dict[str, tuple[Spelling, dict[bytes, Any]]] = {
    "an object array": (OPENPI, {b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "|O", b"shape": [1]}),
    "a void array": (OPENPI, {b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "V8", b"shape": [1]}),
    "dates": (OPENPI, {b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "<M8[D]", b"shape": [1]}),
    "texts": (OPENPI, {b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "<U2", b"shape": [1]}),
    "no data": (OPENPI, {b"__ndarray__": True, b"dtype": "<f4", b"shape": [1]}),
    "data that is a list": (OPENPI, {b"__ndarray__": True, b"data": [1], b"dtype": "<f4", b"shape": [1]}),
    "a shape that lies": (OPENPI, {b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "<f4", b"shape": [3]}),
    "a negative shape": (OPENPI, {b"__ndarray__": True, b"data": b"x" * 8, b"dtype": "<f4", b"shape": [-1]}),
    "a giant shape": (OPENPI, {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [2**62, 2**62, 0]}),
    "a scalar that is a text": (OPENPI, {b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"}),
    "a scalar of objects": (OPENPI, {b"__npgeneric__": True, b"data": 1, b"dtype": "|O"}),
    "an integer too large": (OPENPI, {b"__npgeneric__": True, b"data": 2**63, b"dtype": "|i1"}),
    "a pickle": (MSGPACK_NUMPY, {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"cos\nsystem"}),
    "kind O of a plain type": (
        MSGPACK_NUMPY,
        {b"nd": True, b"type": "<f4", b"kind": b"O", b"shape": [1], b"data": b"1234"},
    ),
    "a structure": (
        MSGPACK_NUMPY,
        {b"nd": True, b"type": [["a", "<f4"]], b"kind": b"V", b"shape": [1], b"data": b"1234"},
    ),
    "nd without data": (MSGPACK_NUMPY, {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [1]}),
    "a scalar of objects there": (MSGPACK_NUMPY, {b"nd": False, b"type": "|O", b"data": b"x" * 8}),
    "a complex number": (MSGPACK_NUMPY, {b"complex": True, b"data": "1j"}),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_array_is_refused_with_its_path(kind: str) -> None:
    spelling, value = FORGED[kind]
    frame = packed({"images": {"cam": value}})
    with pytest.raises(WireError) as refused:
        by_name(spelling.name).read_request(frame)
    assert refused.value.path == "images/cam"


def test_a_marker_key_with_an_innocent_value_is_just_a_map() -> None:
    assert read(OPENPI, packed({"a": {"__ndarray__": "a note"}})) == {"a": {"__ndarray__": "a note"}}
    assert read(MSGPACK_NUMPY, packed({"a": {"nd": "north-east"}})) == {"a": {"nd": "north-east"}}


def test_each_spelling_is_told_from_the_other_at_any_depth() -> None:
    for spelling in SPELLINGS:
        message = {"prompt": "x", "deep": {"er": [1, {"a": np.zeros(2)}]}}
        assert spelling_of(unpack(spelling.pack(message))) == spelling.name
    assert spelling_of({"prompt": b"x"}) is None


@given(frame=st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_wire_error(frame: bytes) -> None:
    for name in ("openpi", "wall_x"):
        with suppress(WireError):
            assert isinstance(by_name(name).read_request(frame), Request)


@given(data=st.data())
def test_a_damaged_frame_is_a_request_or_a_wire_error(data: st.DataObject) -> None:
    spelling = data.draw(st.sampled_from(SPELLINGS))
    observation = {"image": np.zeros((2, 3, 3), np.uint8), "state": np.zeros(4), "x": np.float32(1), "prompt": "go"}
    frame = bytearray(spelling.pack(observation))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    with suppress(WireError):
        assert isinstance(by_name(spelling.name).read_request(bytes(frame[:cut])), Request)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("dtype", ["u1", "?", "<f2", "<f4", ">f4", ">i8", "g"])
@pytest.mark.parametrize("order", ["as it is", "by columns", "every other", "one number everywhere", "read-only"])
def test_a_large_array_is_sent_without_a_copy_or_in_the_order_that_is_read(
    spelling: Spelling, dtype: str, order: str
) -> None:
    image = np.arange(90 * 80 * 2).reshape(90, 80, 2).astype(dtype)
    array = {
        "as it is": image,
        "by columns": np.asfortranarray(image),
        "every other": image[::2],
        "one number everywhere": np.broadcast_to(image[0, 0, 0], (90, 80)),
        "read-only": image,
    }[order]
    if order == "read-only":
        array.flags.writeable = False
    parts = spelling.parts({"image": array, "prompt": "go"})
    assert b"".join(parts) == spelling.pack({"image": array, "prompt": "go"})
    (data,) = [part for part in parts if isinstance(part, memoryview)]
    assert len(data) == array.nbytes
    assert np.shares_memory(np.frombuffer(data, np.uint8), array) == (order in ("as it is", "read-only"))


@pytest.mark.parametrize("kind", ["f", b"f", "", None])
def test_a_kind_of_plain_numbers_is_read_whatever_it_says(kind: Any) -> None:
    marked = {"nd": True, "type": "<f4", "kind": kind, "shape": [1], "data": np.float32(2).tobytes()}
    np.testing.assert_array_equal(MSGPACK_NUMPY.unmark({"x": marked})["x"], [2.0])
