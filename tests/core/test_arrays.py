"""Arrays out of strangers' bytes: what passes, and what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from policyserve.core.arrays import MAX_DIMENSIONS, describe, read_array, read_dtype
from policyserve.core.errors import WireError

NUMBERS = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


@pytest.mark.parametrize("order", ["<", ">", "=", "|", ""])
@pytest.mark.parametrize("number", NUMBERS)
def test_every_width_of_number_passes_in_either_byte_order(number: str, order: str) -> None:
    sent = np.array([[0, 1, 1], [1, 0, 1]], dtype=order.replace("|", "") + number)
    array = read_array(sent.tobytes(), order + number, [2, 3], "a")
    np.testing.assert_array_equal(array, sent)
    assert array.dtype == np.dtype(number)
    assert array.dtype.isnative
    assert array.flags.writeable
    assert array.flags.aligned


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "int64", "uint8", "bool", "f4", b"<f4", b"float32"])
def test_a_dtype_may_be_spelled_by_name_and_in_bytes(name: str | bytes) -> None:
    assert read_dtype(name, "a").kind in "biuf"


@pytest.mark.parametrize(
    "name",
    [
        "|O", "O", "object", "V8", "|V8", "V", "void", "S4", "|S4", "U4", "<U4", "str", "bytes", "M8[s]", "<M8[D]",
        "m8[s]", "datetime64", "c8", "c16", "complex64", "f4,f4", "(2,)f4", "3f4", "{'a': 'f4'}", "float12", "float8",
        "", "<", "4", "f4\x00", "<f4 ", "é", "a" * 33, "f4," * 400, "float8_e4m3fn", "int4",
    ],
)  # fmt: skip
def test_every_other_dtype_is_refused_with_its_path(name: str) -> None:
    with pytest.raises(WireError) as caught:
        read_array(bytes(8), name, [1], "obs/state")
    assert caught.value.path == "obs/state"
    assert "dtype" in str(caught.value)


@pytest.mark.parametrize("name", [None, 4, 4.0, ["<f4"], {"a": 1}, True, [("a", "<f4")]])
def test_a_dtype_that_is_no_text_is_refused(name: object) -> None:
    with pytest.raises(WireError, match="dtype name"):
        read_array(bytes(8), name, [1], "a")


@pytest.mark.parametrize("name", ["bfloat16", b"bfloat16", "<bfloat16"])
def test_bfloat16_is_refused_by_name(name: str | bytes) -> None:
    with pytest.raises(WireError, match="bfloat16"):
        read_array(bytes(4), name, [2], "a")


def test_an_array_without_dimensions_passes() -> None:
    array = read_array(np.float64(1.5).tobytes(), "<f8", [], "a")
    assert array.shape == ()
    assert array == 1.5


@pytest.mark.parametrize("shape", [[0], [0, 7], [7, 0], [0, 0]])
def test_an_empty_array_keeps_its_shape(shape: list[int]) -> None:
    assert read_array(b"", "<f4", shape, "a").shape == tuple(shape)


def test_any_byte_but_zero_is_true() -> None:
    array = read_array(bytes([0, 1, 2, 255]), "|b1", [4], "a")
    assert array.tolist() == [False, True, True, True]
    assert array.tobytes() == bytes([0, 1, 1, 1])  # and stored as a valid bool: sum() would count 255 otherwise


@pytest.mark.parametrize("shape", [[-1], [2, -1], [-4, -1], [1.0, 4], ["4"], [None], [True, 4], 4, None, "4", b"4", {}])
def test_a_shape_that_is_no_list_of_sizes_is_refused(shape: object) -> None:
    with pytest.raises(WireError) as caught:
        read_array(bytes(16), "<f4", shape, "a")
    assert caught.value.path == "a"
    assert "shape" in str(caught.value)


@pytest.mark.parametrize("size", [b"x" * 1_000_000, "x" * 1_000_000, [[[0]]] * 10_000, {"k": 1}, 2**64, -(2**63)])
def test_a_strange_size_gives_a_short_reason(size: object) -> None:
    with pytest.raises(WireError) as caught:
        read_array(bytes(4), "<f4", [size], "a")
    assert len(str(caught.value)) < 300


def test_sizes_nested_a_thousand_deep_are_refused() -> None:
    size: list[Any] = []
    for _ in range(2_000):
        size = [size]
    with pytest.raises(WireError):
        read_array(bytes(4), "<f4", [size], "a")


@pytest.mark.parametrize("sent", [0, 15, 17, 1_000])
def test_bytes_that_do_not_match_the_shape_are_refused_with_both_numbers(sent: int) -> None:
    with pytest.raises(WireError, match=rf"expected 16 bytes for float32 \(4,\), got {sent} bytes"):
        read_array(bytes(sent), "<f4", [4], "a")


def test_thirty_two_dimensions_pass_and_one_more_does_not() -> None:
    assert read_array(bytes(4), "<f4", [1] * MAX_DIMENSIONS, "a").ndim == 32
    with pytest.raises(WireError, match="32 dimensions"):
        read_array(bytes(4), "<f4", [1] * 33, "a")
    with pytest.raises(WireError, match="32 dimensions"):
        read_array(bytes(4), "<f4", [1] * 1_000_000, "a")


@pytest.mark.parametrize("shape", [[2**40], [2**63], [2**31, 2**31], [2**64 - 1] * 32, [0, 2**63], [0, 2**60, 2**60]])
def test_a_giant_shape_is_refused_without_memory(shape: list[int]) -> None:
    with pytest.raises(WireError):
        read_array(b"", "<f4", shape, "a")


@pytest.mark.parametrize("data", ["text", 1, None, [1], {"a": 1}])
def test_data_that_is_no_bytes_is_refused(data: object) -> None:
    with pytest.raises(WireError, match="raw bytes"):
        read_array(data, "<f4", [1], "a")


def test_the_array_is_a_copy_of_the_buffer() -> None:
    buffer = bytearray(np.arange(3, dtype="<f4").tobytes())
    array = read_array(buffer, "<f4", [3], "a")
    buffer[:] = bytes(len(buffer))
    assert array.tolist() == [0, 1, 2]


def test_bytes_at_an_odd_address_become_an_aligned_array() -> None:
    buffer = memoryview(b"\0" + np.arange(3, dtype="<f8").tobytes())[1:]
    array = read_array(buffer, "<f8", [3], "a")
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2]


NUMBER_DTYPES = st.one_of(
    nps.boolean_dtypes(), nps.integer_dtypes(), nps.unsigned_integer_dtypes(), nps.floating_dtypes()
)


@given(nps.arrays(NUMBER_DTYPES, nps.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5)))
def test_any_array_of_numbers_makes_the_round_trip(sent: np.ndarray[Any, Any]) -> None:
    array = read_array(sent.tobytes(), sent.dtype.str, list(sent.shape), "a")
    np.testing.assert_array_equal(array, sent)
    assert array.dtype == sent.dtype.newbyteorder("=")
    assert array.tobytes() == np.ascontiguousarray(sent.astype(array.dtype)).tobytes()


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats()
    | st.binary(max_size=20)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
SHAPES = st.lists(st.integers(-3, 2**64), max_size=40) | ANYTHING


@given(ANYTHING, st.sampled_from([*NUMBERS, "|O", "V8", "bfloat16"]) | ANYTHING, SHAPES)
def test_any_parts_give_an_array_or_a_wire_error(data: object, dtype: object, shape: object) -> None:
    try:
        array = read_array(data, dtype, shape, "a")
    except WireError:
        return
    assert array.dtype.kind in "biuf"


@pytest.mark.parametrize(
    ("shape", "text"),
    [((), "float32 ()"), ((4,), "float32 (4,)"), ((None, 3), "float32 (*, 3)"), ((None,), "float32 (*,)")],
)
def test_a_shape_is_described_for_people(shape: tuple[int | None, ...], text: str) -> None:
    assert describe("float32", shape) == text
