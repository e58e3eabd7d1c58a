"""What a policy says besides its actions, read once into values that nobody has to run its code for."""

from __future__ import annotations

import enum
from collections import OrderedDict, UserDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from policyserve.core.plain import plain_map
from tests.engine.awkward import Raising, RaisingMap


class Mode(str, enum.Enum):
    LIFT = "lift"


class Tensor:
    """What NumPy can make an array of; counts how often."""

    def __init__(self) -> None:
        self.reads = 0

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self.reads += 1
        return np.arange(3.0)


PLAIN = {
    "text": "x",
    "numbers": [1, 2.0, True, None, b"bytes"],
    "array": np.arange(3),
    "scalar": np.float32(1),
    "nested": {"map": {"deep": (1, 2)}},
}


def test_what_is_plain_is_the_same_object() -> None:
    assert plain_map(PLAIN) is PLAIN


@pytest.mark.parametrize("kind", [MappingProxyType, UserDict, OrderedDict])
def test_any_map_becomes_a_dict(kind: Any) -> None:
    read = plain_map(kind({"outer": kind({"x": 1})}))
    assert read == {"outer": {"x": 1}}
    assert type(read) is type(read["outer"]) is dict


def test_what_numpy_can_read_is_read_once() -> None:
    tensor = Tensor()
    read = plain_map({"more": [{"tensor": tensor}]})
    array = read["more"][0]["tensor"]
    assert type(array) is np.ndarray
    np.asarray(array)
    assert tensor.reads == 1


def test_subclasses_of_plain_types_lose_their_methods_and_keep_their_values() -> None:
    read = plain_map({"mode": Mode.LIFT, "number": enum.IntEnum("Number", "one")["one"]})
    assert read == {"mode": "lift", "number": 1}
    assert [type(value) for value in read.values()] == [str, int]


def test_what_cannot_be_read_stays_for_who_writes_it_to_name() -> None:
    odd: dict[str, Any] = {"set": {1}, "path": Path("x"), "raising": Raising("an exit"), "map": RaisingMap("an exit")}
    read = plain_map(odd)
    assert all(read[key] is odd[key] for key in odd)


def test_a_map_that_cannot_be_read_raises() -> None:
    with pytest.raises(SystemExit):
        plain_map(RaisingMap("an exit"))


def test_a_map_that_holds_itself_is_read_no_deeper_than_a_wire_goes() -> None:
    knot: dict[str, Any] = {"tensor": Tensor()}
    for number in range(20):
        knot[str(number)] = UserDict(knot)
        knot[f"again {number}"] = [knot, knot]
    plain_map(knot)
