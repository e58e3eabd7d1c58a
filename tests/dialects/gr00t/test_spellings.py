"""How arrays are written: both ways are read, and it is known which was meant."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.errors import WireError
from policyserve.dialects.gr00t.spellings import ND, NPY, spelling_shown
from policyserve.dialects.unpacking import unpack

X = np.arange(3, dtype=np.float32)


def decoded(message: bytes) -> Any:
    return unpack(message, texts=True)


@pytest.mark.parametrize("spelling", [NPY, ND], ids=["npy", "nd"])
def test_either_reads_both(spelling: Any) -> None:
    for other in (NPY, ND):
        found = spelling.unmark(decoded(other.pack({"state": {"x": X}})))
        assert np.array_equal(found["state"]["x"], X)


def test_the_first_array_shows_how_a_message_is_written() -> None:
    assert spelling_shown(decoded(NPY.pack({"a": [1, {"b": X}]}))) is NPY
    assert spelling_shown(decoded(ND.pack({"a": {}, "b": {"c": X}}))) is ND
    assert spelling_shown({"a": [1, "b", {"nd": 1}], "c": {"__ndarray_class__": 1}}) is None
    assert spelling_shown("text") is None


def test_a_scalar_of_numpy_comes_as_an_array_without_axes_or_as_a_number() -> None:
    assert NPY.unmark(decoded(NPY.pack({"a": np.float32(2)})))["a"].shape == ()
    assert ND.unmark(decoded(ND.pack({"a": np.float32(2)})))["a"] == 2


@pytest.mark.parametrize("marked", [{}, {"as_npy": "text"}, {"as_npy": None}])
def test_a_marker_without_its_bytes_is_refused(marked: dict[str, Any]) -> None:
    message = msgpack.packb({"x": {"__ndarray_class__": True, **marked}})
    assert isinstance(message, bytes)
    with pytest.raises(WireError, match=r"x: expected an array with as_npy bytes"):
        NPY.unmark(decoded(message))


def test_a_marker_that_is_not_true_is_a_map() -> None:
    assert NPY.unmark({"x": {"__ndarray_class__": "yes", "as_npy": b""}})["x"]["as_npy"] == b""
