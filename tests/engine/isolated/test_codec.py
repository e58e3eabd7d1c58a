"""Values on their way between two processes (test_runner_contract has them cross for real)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.printable import one_line
from policyserve.core.recipe import Recipe
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
from policyserve.engine.isolated.codec import Packed, pack, unpack
from policyserve.engine.isolated.faults import read_error, write_error
from policyserve.policies.vibe_rl import TrainConfig
from policyserve.policies.wall_x import ModelConfig, Options, wall_x_spec
from tests.strange import STRANGE, strange


def cross(value: Any, *, trusted: bool = False) -> Any:
    packed = Packed(value)
    memory = np.zeros(packed.size, np.uint8)
    packed.write_arrays(memory)
    assert b"".join(packed.pieces()) == memory.tobytes()
    return unpack(packed.data, memory, trusted=trusted)


@pytest.mark.parametrize("size", [0, 4, 100, 2048, 2049, 100_000])
def test_arrays_of_any_size_come_out_writable_aligned_and_equal(size: int) -> None:
    sent = {"a": np.arange(size, dtype=np.float64), "b": np.arange(size, dtype=np.uint8), "c": [np.ones(size, bool)]}
    got = cross(sent)
    for key in ("a", "b"):
        np.testing.assert_array_equal(got[key], sent[key])
        assert got[key].dtype == sent[key].dtype
        assert got[key].flags.writeable
        assert got[key].flags.aligned
    np.testing.assert_array_equal(got["c"][0], sent["c"][0])


def test_pieces_are_the_arrays_themselves_and_a_copy_of_what_lies_apart() -> None:
    image, strided = np.zeros((480, 640, 3), np.uint8), np.ones((200, 200))[:, ::2]
    first, _, *_ = pieces = Packed([image, strided]).pieces()
    assert np.shares_memory(np.frombuffer(first, np.uint8), image)
    assert sum(map(len, pieces)) == Packed([image, strided]).size


def test_large_arrays_are_not_in_the_message() -> None:
    packed = Packed({"image": np.zeros((480, 640, 3), np.uint8), "state": np.zeros(8)})
    assert len(packed.data) < 300
    assert 480 * 640 * 3 <= packed.size < 480 * 640 * 3 + 128


def test_what_crosses_once_has_its_arrays_in_the_message() -> None:
    image = np.arange(90_000, dtype=np.uint8).reshape(300, 300)
    np.testing.assert_array_equal(unpack(pack({"image": image}))["image"], image)


@pytest.mark.parametrize(
    "value",
    [(1, (2, [3])), Path("/some/where"), {1: "a", "b": b"c"}, np.float32(0.5), np.str_("x"), -(2**63), 2**64 - 1, None],
    ids=repr,
)
def test_every_type_comes_out_as_it_went_in(value: Any) -> None:
    got = cross(value)
    assert type(got) is type(value)
    assert got == value


@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), np.array([object()]), np.zeros(2, [("a", "f4")]), 2**64, lambda: None],
    ids=lambda one: type(one).__name__,
)
def test_what_cannot_cross_is_an_error_here(value: Any) -> None:
    with pytest.raises((TypeError, OverflowError, ValueError)):
        Packed({"deep": [value]})


def test_specs_come_out_equal_an_adapters_own_among_them() -> None:
    spec = PolicySpec(
        "all",
        {
            "a": ArraySpec((None, 3), "uint8"),
            "images": {"b": ImageSpec(height=3, layouts=("HWC", "CHW"))},
            "c": TextSpec(),
        },
        ArraySpec((7,)),
        horizon=5,
        metadata={"rates": (1, 2), "mean": np.arange(3.0), "nested": {"x": [1.5, None]}},
    )
    assert repr(cross(spec)) == repr(spec)
    for other in (replace(spec, observation={"d": TextListSpec()}, metadata={}), wall_x_spec(ModelConfig())):
        assert cross(other) == other


def test_a_recipe_brings_the_flags_of_presets_and_models() -> None:
    recipe = Recipe("a:b", {"flags": TrainConfig(), "model": ModelConfig(), "options": Options(), "path": Path("x")})
    assert cross(recipe, trusted=True) == recipe


@dataclass(frozen=True)
class Stranger:
    """No spec."""

    x: int = 1


def test_a_server_takes_specs_only() -> None:
    assert cross(Stranger(2), trusted=True) == Stranger(2)
    with pytest.raises(TypeError, match="Stranger cannot come from another process"):
        cross(Stranger(2))


@pytest.mark.parametrize("name", STRANGE)
def test_any_error_crosses_as_one_that_a_future_holds(name: str) -> None:
    try:
        strange(name)
    except BaseException as raised:
        written = cross(write_error(raised))
    error = read_error(written)
    assert isinstance(error, Exception)
    assert not isinstance(error, StopIteration)
    assert one_line(str(error)) == str(error)
    assert len(str(error.__cause__)) < 12_000
