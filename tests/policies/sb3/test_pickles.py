"""The reader of pickles runs nothing, builds only what is expected, and takes memory by the file's size."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError
from policyserve.policies.sb3.numpy_values import NUMPY, array_of, dtype_of, map_of
from policyserve.policies.sb3.pickles import Thing, read_pickle
from policyserve.policies.sb3.spaces import SPACES
from tests.policies.sb3.cases import MARK, pickle_with_code

ORDERED = "collections OrderedDict"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def read(data: bytes, *expected: str) -> Any:
    return read_pickle(data, "p", expected)


@settings(max_examples=80, deadline=None)
@given(PLAIN, st.integers(2, 5))
def test_plain_values_are_what_was_pickled(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


def test_bytes_are_views_of_the_file() -> None:
    content = pickle.dumps(b"x" * 1000, 5)
    found = read(content)
    assert isinstance(found, memoryview)
    assert found.obj is content


def test_what_is_kept_is_the_same_where_it_is_used_again() -> None:
    shared = ["a"]
    found = read(pickle.dumps([shared, shared]))
    assert found[0] is found[1]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_program_is_refused_and_not_run(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"p: expected a pickle of known parts, got 'posix\.mkdir'|'nt\.mkdir'"):
        read_pickle(pickle_with_code(protocol), "p", SPACES)
    assert not (tmp_path / MARK).exists()


def test_what_is_expected_becomes_a_thing_and_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = read(pickle_with_code(), "posix mkdir", "nt mkdir")
    assert isinstance(found, Thing)
    assert found.args == (MARK,)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "its end too early"),
        (b"\x80\x09.", "protocol 9"),
        (b".", "an opcode without its value"),
        (b"I1\n.", "opcode b'I'"),
        (b"cos\nsystem\n.", "'os.system'"),
        (b"(cos\nsystem\n.", "'os.system'"),
        (b"\x80\x04K\x01)R.", "a call of what is no global"),
        (b"\x80\x04K\x01}b.", "a state for what has none"),
        (b"\x80\x04)Q.", "a persistent id"),
        (b"\x80\x04h\x07.", "a value 7 that was not kept"),
        (b"\x80\x04u.", "an opcode without its mark"),
        (b"\x80\x04K\x01(\x8c\x01aNu.", "items for what is no map"),
        (b"\x80\x04}K\x01K\x02s.", "a map whose key is no text"),
        (b"\x80\x04}(\x8c\x01au.", "items for what is no map"),
        (b"\x80\x04]K\x01s.", "an opcode without its value"),
        (b"\x80\x04)K\x01a.", "items for what is no list"),
        (b"\x80\x04" + b"(" * 100, "nested too deep"),
        (b"\x80\x04" + b"N0" * 200_000 + b"N.", "more than 200000 opcodes"),
        (b"\x80\x04\x8c\x02\xff\xfe.", "no UTF-8"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "its end too early"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xffa.", "its end too early"),
        (b"\x80\x04K\x01K\x02\x93.", "no text"),
    ],
)
def test_what_is_no_pickle_of_known_parts_says_where(content: bytes, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(content)
    assert told in str(caught.value)
    assert " at byte " in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_config_error(content: bytes) -> None:
    with suppress(ConfigError):
        read_pickle(b"\x80\x04" + content, "p", SPACES)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", ">i4", "bool"])
@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numpy_are_read_whatever_their_order(dtype: str, protocol: int, order: str) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4) % 2, dtype, order=order)  # type: ignore[call-overload]
    found = array_of(read_pickle(pickle.dumps(array, protocol), "p", NUMPY), "p")
    np.testing.assert_array_equal(found, array)
    assert found.dtype.isnative


def test_scalars_and_dtypes_of_numpy_are_read() -> None:
    assert array_of(read_pickle(pickle.dumps(np.int64(7), 4), "p", NUMPY), "p") == 7
    assert dtype_of(read_pickle(pickle.dumps(np.dtype("f8"), 4), "p", NUMPY), "p") == np.float64
    assert dtype_of(Thing("numpy float32"), "p") == np.float32


@pytest.mark.parametrize(
    "value", [np.array([Fraction(1, 2)]), np.zeros(2, [("a", "f4")]), np.array(["text"]), np.array(3j)]
)
def test_an_array_of_other_things_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="p: expected"):
        array_of(read_pickle(pickle.dumps(value, 4), "p", [*NUMPY, "fractions Fraction"]), "p")


def test_an_array_of_more_than_its_bytes_is_refused() -> None:
    thing = Thing("numpy.core.numeric _frombuffer", (memoryview(b"1234"), Thing("numpy float32"), (1 << 30,), "C"))
    with pytest.raises(ConfigError, match=r"expected 4294967296 bytes for float32 \(1073741824,\), got 4"):
        array_of(thing, "p")


def test_an_ordered_dict_is_a_map_however_it_was_pickled() -> None:
    for protocol in (2, 4):
        assert map_of(read(pickle.dumps(OrderedDict(a=1, b=2), protocol), ORDERED), "p") == {"a": 1, "b": 2}
    assert map_of(Thing(ORDERED, ([["a", 1]],)), "p") == {"a": 1}
    with pytest.raises(ConfigError, match="p: expected a map, got int"):
        map_of(3, "p")


def test_an_error_walks_no_value_that_grows_by_being_told() -> None:
    """Thirty tuples, each of which has the one before twice: written out, they would be a thousand million."""
    doubled = b"\x80\x04)" + b"2\x86" * 30
    content = doubled[:2] + b"cnumpy\ndtype\n" + doubled[2:] + b"\x85R."
    with pytest.raises(ConfigError, match="expected a dtype of numbers, got tuple"):
        dtype_of(read(content, "numpy dtype"), "p")
