"""Spaces of Gymnasium, and of Gym before it, as their pickles describe them."""

from __future__ import annotations

import base64
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.sb3.pickles import Thing
from policyserve.policies.sb3.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, read_space, space_of
from tests.policies.frameworks import import_or_skip
from tests.policies.sb3.cases import path_of

FLOAT32 = Thing("numpy float32")


def described(space: Any, protocol: int = 4) -> dict[str, str]:
    return {":serialized:": base64.b64encode(pickle.dumps(space, protocol)).decode()}


def thing(kind: str, **state: Any) -> Thing:
    return Thing(kind, (), state=state)


def test_every_space_of_gymnasium_is_read() -> None:
    gymnasium = import_or_skip("gymnasium")
    spaces = gymnasium.spaces
    robot = {
        "box": spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32), dtype=np.float32),
        "counts": spaces.MultiDiscrete([2, 3]),
        "one": spaces.Discrete(4, start=2),
        "bits": spaces.MultiBinary([2, 2]),
    }
    found = read_space(described(spaces.Dict(robot, seed=1)), "s")
    assert isinstance(found, Dict)
    box, counts, one, bits = (found.spaces[name] for name in robot)
    assert isinstance(box, Box)
    assert (box.shape, box.dtype, box.low.tolist(), box.high.tolist()) == ((2,), np.float32, [-1, -2], [1, 2])
    assert counts == MultiDiscrete((2, 3))
    assert one == Discrete(4, 2)
    assert bits == MultiBinary((2, 2))
    assert [leaf.width for leaf in (box, counts, one, bits)] == [2, 5, 4, 4]


def test_a_space_that_was_sampled_brings_its_generator_which_is_looked_past() -> None:
    gymnasium = import_or_skip("gymnasium")
    space = gymnasium.spaces.Discrete(3, seed=5)
    space.sample()
    assert read_space(described(space), "s") == Discrete(3)


def test_spaces_of_gym_are_those_of_gymnasium() -> None:
    assert space_of(thing("gym.spaces.discrete Discrete", n=3, shape=()), "s") == Discrete(3)
    assert space_of(thing("gym.spaces.multi_binary MultiBinary", n=3, shape=(3,)), "s") == MultiBinary((3,))
    numbers = Thing("numpy.core.numeric _frombuffer", (memoryview(b"\0" * 8), FLOAT32, (2,), "C"))
    box = space_of(thing("gym.spaces.box Box", dtype=FLOAT32, shape=(2,), low=numbers, high=numbers), "s")
    assert str(box) == "Box float32 (2,)"


def test_a_picture_is_what_the_original_takes_for_one() -> None:
    low, high = np.zeros((3, 2, 2), np.uint8), np.full((3, 2, 2), 255, np.uint8)
    assert Box((3, 2, 2), np.dtype(np.uint8), low, high).is_image
    assert not Box((3, 2, 2), np.dtype(np.float32), low, high).is_image
    assert not Box((3, 2, 2), np.dtype(np.uint8), low, high - 1).is_image
    assert not Box((12,), np.dtype(np.uint8), low.ravel(), high.ravel()).is_image


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (thing("gymnasium.spaces.tuple Tuple", spaces=()), "expected one of Box, Discrete, MultiDiscrete"),
        (thing("gymnasium.spaces.dict Dict", spaces={}), "got an empty one"),
        (thing("gymnasium.spaces.dict Dict", spaces={"a": thing("gymnasium.spaces.dict Dict", spaces={})}), "got Dict"),
        (thing("gymnasium.spaces.discrete Discrete", n=0), "n: expected a whole number from 1"),
        (thing("gymnasium.spaces.discrete Discrete", n=1 << 40), "n: expected a whole number from 1 to 1048576"),
        (thing("gymnasium.spaces.discrete Discrete", n=1 << 80), "n: expected a number of 64 bits"),
        (thing("gymnasium.spaces.discrete Discrete", n="3"), "n: expected numbers, got '3'"),
        (thing("gymnasium.spaces.multi_discrete MultiDiscrete", nvec=3), "nvec: expected a vector"),
        (thing("gymnasium.spaces.multi_binary MultiBinary", _shape=(1 << 30,)), "expected 1 to 1048576 numbers"),
        (thing("gymnasium.spaces.box Box", _shape=(2,), dtype=FLOAT32, low=1.0, high=2.0), "bounds of the box's shape"),
        (thing("gymnasium.spaces.box Box", _shape=3, dtype=FLOAT32), "expected the sizes of axes, got int"),
        (thing("gymnasium.spaces.box Box", _shape=(2,), dtype="f4"), "expected a dtype of numbers, got str"),
        (7, "got int"),
        (None, "got None"),
    ],
)
def test_what_is_no_space_is_told(space: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space_of(space, "s")
    assert told in str(caught.value)


def test_the_printed_bounds_are_not_what_is_read() -> None:
    data = json.loads(zipfile.ZipFile(path_of("tqc_sde")).read("data"))
    data["action_space"]["low"] = data["action_space"]["high"] = "[9. 9. 9.]"
    found = read_space(data["action_space"], "s")
    assert isinstance(found, Box)
    np.testing.assert_array_equal(found.high, np.array([1.5, 0.1, 3.25], np.float32))


def test_a_box_is_bounded_where_tanh_can_be_rescaled_to_it() -> None:
    one = np.ones(2, np.float32)
    assert Box((2,), np.dtype(np.float32), -one, one).is_bounded
    assert not Box((2,), np.dtype(np.float32), -one, one * np.inf).is_bounded
    assert not Box((2,), np.dtype(np.float32), -3e38 * one, 3e38 * one).is_bounded
