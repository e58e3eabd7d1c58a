"""What our client of LeRobot's servers writes: pickles that Python reads as the original's, and gRPC's messages."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS
from policyserve.dialects.lerobot.client_half import (
    MODULE,
    features_of,
    observation_messages,
    raw_of,
    write_observation,
    write_setup,
)
from policyserve.dialects.lerobot.dialect import LeRobot
from policyserve.dialects.lerobot.messages import (
    Parts,
    read_actions_data,
    read_setup_data,
    write_actions,
)
from policyserve.dialects.lerobot.messages import (
    write_setup as setup_message,
)
from policyserve.dialects.lerobot.pickled import OBSERVATION, SETUP, Walk, fields_of, read_thing
from policyserve.dialects.lerobot.setup import read_setup
from tests.dialects.lerobot import written
from tests.dialects.recorded import assert_same, message

PICTURE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
ROBOT = {"images": {"front": PICTURE}, "state": np.array([0.5, -1.0], np.float32), "prompt": "fold"}


def fields(pickled: bytes | str, name: str) -> Any:
    assert isinstance(pickled, bytes)
    return Walk(len(pickled), DEFAULT_LIMITS).value(fields_of(read_thing(pickled, DEFAULT_LIMITS), name), "")


def loaded(pickled: bytes) -> Any:
    """As LeRobot's own server reads it."""
    with written.lerobots_modules():
        return pickle.loads(pickled)


def test_an_observation_says_what_the_originals_says() -> None:
    theirs = fields(message("lerobot_async", "observation_first_must_go"), OBSERVATION)
    ours = write_observation(theirs["observation"], theirs["timestamp"], theirs["timestep"])
    assert_same(fields(ours, OBSERVATION), theirs)
    assert read_thing(ours, DEFAULT_LIMITS).kind == f"{MODULE} {OBSERVATION}"


def test_a_setup_says_what_the_originals_says() -> None:
    theirs = fields(message("lerobot_async", "policy_setup"), SETUP)
    ours = fields(write_setup("user/model", theirs["lerobot_features"], 4), SETUP)
    assert ours == {**theirs, "policy_type": "act", "device": "cpu"}
    assert type(loaded(write_setup("user/model", {}))).__name__ == SETUP


@pytest.mark.parametrize(
    "value",
    [0, -3, 2**31, 0.5, True, None, "é", [1, [2.5]], (1, (2,)), {"a": {"b": 1}}, np.float32(0.5)],
    ids=str,
)
def test_python_reads_back_what_was_written(value: Any) -> None:
    assert loaded(write_observation({"x": value})).observation["x"] == value


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f8", "<i8", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 3, 4)])
def test_numpy_reads_back_arrays_of_any_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    read = loaded(write_observation({"x": array})).observation["x"]
    assert (read.dtype, read.shape) == (array.dtype.newbyteorder("="), array.shape)  # NumPy turns bytes on reading
    np.testing.assert_array_equal(read, array)


def test_a_robot_has_joints_and_cameras() -> None:
    assert_same(raw_of(ROBOT), {"front": PICTURE, "state.0": 0.5, "state.1": -1.0, "task": "fold"})
    pickled = LeRobot().write_request(ROBOT)
    features = features_of(pickled)
    assert features["observation.state"]["names"] == ["state.0", "state.1"]
    setup = read_setup(write_setup("act", features))
    observation = LeRobot(setup).read_request(pickled).observation
    assert_same({key: observation[key] for key in ROBOT}, ROBOT)
    assert setup.is_whole


@pytest.mark.parametrize("size", [0, 3, 2 << 20, (2 << 20) + 1, 5 << 20])
def test_an_observation_goes_in_parts_and_is_put_together(size: int) -> None:
    pickled = bytes(size)
    parts = Parts(6 << 20)
    ends = [parts.add(one) for one in observation_messages(pickled)]
    assert ends == [False] * (max(-(-size // (2 << 20)), 1) - 1) + [True]
    assert bytes(parts.data) == pickled


def test_messages_around_setups_and_actions_are_read_back() -> None:
    assert read_setup_data(setup_message(b"abc" * 100)) == b"abc" * 100
    assert read_actions_data(write_actions(b"abc")) == b"abc"
    assert read_actions_data(b"") == b""


@pytest.mark.parametrize(
    ("observation", "told"),
    [
        ({"a": {"b": np.zeros((2, 2))}}, r"a/b: .*got an array of shape \(2, 2\)"),
        ({"a": np.zeros(5000)}, r"a: .*got an array of shape \(5000,\)"),
        ({"a": np.array(["x"])}, "a: "),
        ({"a": [1, 2]}, "a: .*got list"),
        (np.zeros(2), "a map of arrays"),
    ],
)
def test_what_a_robot_cannot_have_is_named(observation: Any, told: str) -> None:
    with pytest.raises(WireError, match=told):
        LeRobot().write_request(observation)


def test_what_no_pickle_of_ours_can_hold_is_named_by_its_path() -> None:
    with pytest.raises(WireError, match=r"observation/x: .*got object"):
        write_observation({"x": object()})
    with pytest.raises(WireError, match="no message before"):
        LeRobot().read_greeting(b"")
