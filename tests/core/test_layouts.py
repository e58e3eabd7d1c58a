"""A layout reads the messages that differ from its own in their holes alone."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array, Placed
from policyserve.core.errors import BadObservation
from policyserve.core.layouts import ArrayHole, FloatHole, Layout, hole_of, template_of
from policyserve.core.leaf_specs import ArraySpec

HEAD, TAIL = b"head", b"tail"


def message(array: Array, number: float) -> memoryview:
    """head, an array, a float64, tail: no dialect's, since a layout knows none."""
    return memoryview(bytearray(HEAD + array.tobytes() + struct.pack(">d", number) + TAIL))


def layout_of(array: Array, number: float, more: Any = None) -> Layout:
    """What is learned of message(array, number)."""
    sent = message(array, number)
    array_hole = hole_of(Placed(array, len(HEAD), array.dtype, array.shape))
    float_hole = hole_of(Placed(number, len(HEAD) + array.nbytes, np.dtype(">f8"), ()))
    assert isinstance(array_hole, ArrayHole)
    assert isinstance(float_hole, FloatHole)
    return Layout(sent, {"x": array_hole, "at": float_hole, "more": more}, [float_hole, array_hole])


@pytest.mark.parametrize("size", [3, 5_000])
def test_arrays_and_floats_of_the_next_message_are_read(size: int) -> None:
    layout = layout_of(np.zeros(size, np.float32), 0.5)
    array = np.arange(size, dtype=np.float32)
    read = layout.read(message(array, 2.5))
    assert read is not None
    assert (read["at"], list(read)) == (2.5, ["x", "at", "more"])
    np.testing.assert_array_equal(read["x"], array)
    assert read["x"].flags.writeable


@pytest.mark.parametrize("place", [0, len(HEAD) - 1, -len(TAIL), -1])
def test_any_other_byte_around_the_holes_is_another_layout(place: int) -> None:
    layout = layout_of(np.zeros(3, np.float32), 0.5)
    sent = message(np.zeros(3, np.float32), 0.5)
    sent[place] ^= 1
    assert layout.read(sent) is None


def test_another_length_is_another_layout() -> None:
    layout = layout_of(np.zeros(3, np.float32), 0.5)
    assert layout.read(message(np.zeros(4, np.float32), 0.5)) is None


def test_a_list_that_is_always_the_same_is_not_shared() -> None:
    layout = layout_of(np.zeros(3, np.float32), 0.5, more=["a", {"b": [1]}])
    first, second = (layout.read(message(np.zeros(3, np.float32), 0.5)) for _ in range(2))
    assert first is not None
    assert second is not None
    first["more"][1]["b"].append(2)
    assert second["more"] == ["a", {"b": [1]}]


def test_an_array_is_cast_and_checked_as_its_spec_says() -> None:
    array = np.arange(3, dtype=np.float64)
    hole = ArrayHole(array, Placed(array, len(HEAD), array.dtype, array.shape))
    sent = message(array, 0.5)
    read = Layout(sent, {"x": hole.cast_by(ArraySpec((3,)), "x")}, [hole]).read(sent)
    assert read is not None
    assert read["x"].dtype == np.float32
    refused = ArrayHole(array + 0.5, Placed(array, len(HEAD), array.dtype, array.shape))
    counts = Layout(sent, {"n": refused.cast_by(ArraySpec((3,), "int64"), "n")}, [refused])
    with pytest.raises(BadObservation, match="n: expected int64"):
        counts.read(message(array + 0.5, 0.5)[: len(sent)])


def test_a_template_has_holes_where_values_stood() -> None:
    array = np.zeros(2, np.float32)
    hole = hole_of(Placed(array, 0, array.dtype, array.shape))
    used: list[Any] = []
    template = template_of({"a": {"x": array}, "t": "text"}, {id(array): hole}, used)
    assert template == {"a": {"x": hole}, "t": "text"}
    assert used == [hole]
