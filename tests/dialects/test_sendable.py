"""What a client may put into an observation, and how it is told of a value that no wire carries."""

from __future__ import annotations

import array
from collections import OrderedDict, deque
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import WireError
from policyserve.dialects import by_name

PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
every_dialect = pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl"])
marked = pytest.mark.parametrize("dialect", ["openpi", "wall_x"])


class Picture:
    """Like a tensor on the CPU, or a picture of an imaging library."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return PICTURE


class OnAnotherDevice:
    """Like a tensor on a GPU."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        raise RuntimeError("copy it to the CPU first")


OnAnotherDevice.__module__ = "torch.somewhere"


def sent(dialect: str, observation: Any) -> Any:
    """The observation, as the server reads it."""
    wire = by_name(dialect)
    return wire.read_request(wire.write_request(observation)).observation


def refusal(dialect: str, observation: Any) -> WireError:
    with pytest.raises(WireError) as caught:
        by_name(dialect).write_request(observation)
    return caught.value


@every_dialect
@pytest.mark.parametrize(
    "value",
    [Picture(), array.array("f", [1, 2]), deque([1.5, 2]), np.float32(3)],
    ids=lambda value: type(value).__name__,
)
def test_what_numpy_makes_numbers_of_is_sent_as_an_array(dialect: str, value: Any) -> None:
    got = sent(dialect, {"it": value})["it"]
    np.testing.assert_array_equal(got, np.asarray(value))
    assert np.asarray(got).dtype == np.asarray(value).dtype


@marked
def test_pictures_and_tensors_may_stand_in_maps_and_lists(dialect: str) -> None:
    got = sent(dialect, {"images": {"wrist": Picture()}, "stack": [Picture(), "left"]})
    np.testing.assert_array_equal(got["images"]["wrist"], PICTURE)
    np.testing.assert_array_equal(got["stack"][0], PICTURE)
    assert got["stack"][1] == "left"


@every_dialect
@pytest.mark.parametrize("kind", [MappingProxyType, OrderedDict])
def test_an_observation_is_any_mapping(dialect: str, kind: Any) -> None:
    np.testing.assert_array_equal(sent(dialect, kind({"it": PICTURE}))["it"], PICTURE)


@marked
def test_an_inner_map_is_any_mapping_too(dialect: str) -> None:
    assert sent(dialect, {"it": MappingProxyType({"a": 1}), "b": [MappingProxyType({"c": 2})]}) == {
        "it": {"a": 1},
        "b": [{"c": 2}],
    }


@marked
@pytest.mark.parametrize(
    ("value", "got", "cure"),
    [
        (np.array(["go"]), "an array of <U2", "list of str"),
        (np.array([b"go"]), "an array of |S2", "list of str"),
        (np.array([None]), "an array of object", "np.float32"),
        (np.array([1j]), "an array of complex128", "real and imaginary"),
        (np.zeros(2, "datetime64[s]"), "an array of datetime64[s]", "seconds"),
        (np.timedelta64(1, "s"), "a scalar of timedelta64[s]", "seconds"),
        (np.zeros(2, [("a", "f4")]), "an array of [('a', '<f4')]", "fields"),
        (2**70, "an int beyond 64 bits", "float"),
        ("\udcff", "a text that is no UTF-8", ""),
        ({1, 2}, "a set", "NumPy array or a text"),
        (Path("frame.png"), "Path", "a text"),
        (1j, "a complex", "NumPy array"),
        (object(), "an object", "NumPy array"),
        (OnAnotherDevice(), "a torch.somewhere.OnAnotherDevice", ".cpu()"),
        (lambda: 0, "a function", "NumPy array"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("place", ["task", "images/wrist", "past[1]/task"])
def test_a_value_that_cannot_be_sent_is_named_by_its_path(
    dialect: str, place: str, value: Any, got: str, cure: str
) -> None:
    observation: dict[str, Any] = {
        "task": {"fine": PICTURE, "task": value},
        "images/wrist": {"fine": PICTURE, "images": {"front": PICTURE, "wrist": value}},
        "past[1]/task": {"fine": PICTURE, "past": ["fine", {"task": value}]},
    }[place]
    error = refusal(dialect, observation)
    assert error.path == place
    assert got in error.got
    assert cure in error.hint
    assert "arrays of numbers" in error.expected.replace("an array", "arrays")


@pytest.mark.parametrize(
    ("value", "got", "hint"),
    [
        ("go", "a str", "openpi"),
        ({"wrist": PICTURE}, "a dict", "openpi"),
        (np.array(["go"]), "an array of <U2", "str"),
        ([[1, 2], [3]], "several shapes", ""),
        (OnAnotherDevice(), "a torch.somewhere.OnAnotherDevice", ".cpu()"),
        (2**70, "an int beyond 64 bits", "float"),
        (None, "a NoneType", ""),
    ],
)
def test_vibe_rls_dialect_carries_arrays_and_says_so(value: Any, got: str, hint: str) -> None:
    error = refusal("vibe_rl", {"fine": PICTURE, "it": value})
    assert error.path == "it"
    assert "vibe_rl's protocol has nothing else" in error.expected
    assert got in error.got
    assert hint in error.hint


@every_dialect
@pytest.mark.parametrize(("key", "path"), [(7, "7"), (b"obs", "b'obs'"), (None, "None"), ("\udcff", "\udcff")])
def test_a_key_that_is_no_text_is_named(dialect: str, key: Any, path: str) -> None:
    error = refusal(dialect, {"fine": PICTURE, key: PICTURE})
    assert error.path == path
    assert error.expected == "a text as key"
    assert str(error).isprintable()


@marked
def test_a_key_of_an_inner_map_is_named_with_the_maps_path(dialect: str) -> None:
    error = refusal(dialect, {"images": {3: PICTURE}})
    assert (error.path, error.hint) == ("images/3", "send it under '3'")


@every_dialect
@pytest.mark.parametrize("observation", [PICTURE, [("obs", 1)], None, "obs", 5])
def test_an_observation_that_is_no_map_is_refused(dialect: str, observation: Any) -> None:
    assert "a map" in refusal(dialect, observation).expected


@marked
def test_a_map_that_holds_itself_is_refused_with_an_end(dialect: str) -> None:
    observation: dict[str, Any] = {"fine": PICTURE}
    observation["again"] = observation
    error = refusal(dialect, observation)
    assert error.path.startswith("again/again/")
    assert "hold itself" in error.hint


@every_dialect
def test_an_array_alone_is_told_to_need_a_key(dialect: str) -> None:
    assert '{"obs": array}' in refusal(dialect, np.zeros(3)).hint
