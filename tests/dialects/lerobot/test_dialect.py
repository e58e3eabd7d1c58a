"""Golden frames of LeRobot's own client, read and written; what it may leave out, and what it may get wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from policyserve.core.dialect import ConversingDialect
from policyserve.core.errors import Overloaded, PolicyFailed, RemoteError, WireError
from policyserve.core.messages import Control, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.lerobot.answers import read_actions, write_actions
from policyserve.dialects.lerobot.dialect import LeRobot
from policyserve.dialects.lerobot.observations import Context
from policyserve.dialects.lerobot.setup import Camera, Numbers, PolicySetup, read_setup
from tests.dialects.lerobot.written import (
    MODULE,
    FeatureType,
    PolicyFeature,
    TimedObservation,
    features,
    lerobots_modules,
    seen,
    setup,
)
from tests.shared import shared_path

TIMING = Timing(0, 0, 0)
FLAT: Any = (2, 3)
FRONT: dict[str, Any] = {"front": np.zeros((2, 3, 3), np.uint8)}
OPEN: dict[str, Any] = {"gripper.pos": "open"}
SO100 = tuple(
    f"{joint}.pos" for joint in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
)


def golden(name: str) -> bytes:
    return shared_path("design", "golden_more", "lerobot_async", name).read_bytes()


def told(name: str) -> Any:
    frames = json.loads(golden("index.json"))["frames"]
    return next(frame["content"]["value"] for frame in frames if frame["file"] == name)


def pickled_observation(observation: Any) -> bytes:
    with lerobots_modules():
        return pickle.dumps(TimedObservation(1.0, 1, observation))


def heard(message: bytes, made: PolicySetup | None = None) -> Request:
    found = LeRobot(made).read_message(message)
    assert isinstance(found, Request)
    return found


def of_two_cameras() -> PolicySetup:
    return read_setup(golden("policy_setup.bin"))


def test_it_is_a_dialect_that_hears_more_than_observations() -> None:
    assert isinstance(LeRobot(), ConversingDialect)


def test_todays_setup_is_read() -> None:
    assert of_two_cameras() == PolicySetup(
        module="lerobot.async_inference.helpers",
        policy_type="smolvla",
        policy="user/model",
        device="cuda",
        actions_per_chunk=4,
        numbers=(Numbers("state", SO100),),
        cameras=(Camera("images/front", "front", (2, 3, 3)), Camera("images/wrist", "wrist", (2, 3, 3))),
    )


def test_the_setup_of_an_older_client_is_read_with_its_own_module() -> None:
    made = read_setup(golden("policy_setup_module_of_0_3.bin"))
    assert (made.module, made.policy, made.actions_per_chunk) == ("lerobot.scripts.server.helpers", "ckpt", 50)


@pytest.mark.parametrize("name", ["observation_first_must_go.bin", "observation_protocol_5.bin"])
@pytest.mark.parametrize("is_told", [True, False])
def test_an_observation_is_read_to_the_values_that_were_sent(name: str, is_told: bool) -> None:
    expected = told("observation_first_must_go.bin")["fields"]
    found = heard(golden(name), of_two_cameras() if is_told else None)
    assert list(found.observation) == ["state", "prompt", "images"]
    sent = expected["observation"]
    np.testing.assert_array_equal(found.observation["state"], np.array([sent[joint] for joint in SO100], np.float32))
    for camera in ("front", "wrist"):
        np.testing.assert_array_equal(found.observation["images"][camera], sent[camera]["array"]["values"])
    assert found.observation["prompt"] == sent["task"]
    asked = found.context
    assert (asked.timestamp, asked.timestep, asked.module) == (expected["timestamp"], expected["timestep"], MODULE)
    assert asked.most == (4 if is_told else None)


def test_an_answer_has_the_bytes_that_the_original_client_executed() -> None:
    expected = golden("actions_reply_written_without_torch.bin")
    actions, timesteps = read_actions(expected)
    assert timesteps == [30, 31, 32, 33]
    np.testing.assert_array_equal(actions, [[step + joint for joint in range(6)] for step in range(4)])
    asked = Context(1795881943.0973198, 30, MODULE, most=4)
    chunk = ActionChunk(np.concatenate([actions, actions]), None)
    assert LeRobot().write_answer(chunk, TIMING, asked) == expected
    np.testing.assert_array_equal(LeRobot().read_reply(expected).actions, actions)


def test_an_answer_names_the_module_of_the_client_that_asked() -> None:
    made = write_actions(np.zeros((1, 2)), Context(0.0, 0, "lerobot.scripts.server.helpers"))
    assert b"clerobot.scripts.server.helpers\nTimedAction\n" in made


def test_what_the_original_server_answers_is_not_taken_for_ours() -> None:
    with pytest.raises(WireError, match="torch"):
        read_actions(golden("actions_reply.bin"))


_ROW = write_actions(np.zeros((1, 2)), Context(0.0, 0, MODULE))
_LONGER = write_actions(np.zeros((1, 3)), Context(0.0, 0, MODULE))
_FIRST = b"ctorch\ntensor\n(](G" + bytes(8)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\x80\x02}.", "expected a list of actions, got dict"),
        (b"\x80\x02]K\x01a.", "expected a TimedAction"),
        (_ROW.replace(b"J\0\0\0\0", b"N"), "0/timestep: expected a whole number"),
        (_ROW.replace(b"](", b"K\x01(").replace(b"et", b"0t"), "which none of LeRobot's messages has"),
        (
            _ROW.replace(_FIRST, _FIRST[:-9] + b"N"),
            "expected a tensor of numbers",
        ),
        (_ROW.replace(_FIRST, _FIRST[:-9] + b"\x8a\xff" + b"\x7f" * 255), "expected numbers of 64 bits"),
        (
            _ROW[:-2] + _LONGER[6:],
            "expected 2 numbers, as the first has, got 3",
        ),
    ],
)
def test_answers_of_another_form_are_refused(message: bytes, expected: str) -> None:
    with pytest.raises(WireError, match=expected):
        read_actions(message)


def test_no_actions_are_an_empty_chunk() -> None:
    assert read_actions(b"\x80\x02].")[0].shape == (0, 0)


@pytest.mark.parametrize("timestep", [0, 255, (1 << 31) - 1])
def test_timesteps_count_on_from_the_observations(timestep: int) -> None:
    _, timesteps = read_actions(write_actions(np.zeros((3, 1)), Context(0.0, timestep, MODULE)))
    assert timesteps == [timestep, timestep + 1, timestep + 2]


def test_a_single_action_is_a_list_of_one() -> None:
    message = LeRobot().write_reply(ActionChunk(np.array([1.0, 2.0]), None), TIMING)
    assert LeRobot().read_reply(message).actions.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("shape", [(), (2, 3, 4)])
def test_actions_of_another_form_are_the_policys_fault(shape: tuple[int, ...]) -> None:
    with pytest.raises(PolicyFailed, match="actions of one dimension"):
        LeRobot().write_reply(ActionChunk(np.zeros(shape), None), TIMING)


def test_errors_are_texts_that_begin_with_their_code() -> None:
    told = LeRobot().write_refusal(Overloaded("full"), "", None)
    assert (told.message, told.close_code) == ("overloaded: full", None)
    assert LeRobot().write_error(Overloaded("full"), "line 1").message == "overloaded: full\nline 1"
    with pytest.raises(RemoteError) as caught:
        LeRobot().read_reply("overloaded: full")
    assert caught.value.code == "overloaded"


def test_a_setup_in_a_session_is_no_request() -> None:
    found = LeRobot().read_message(golden("policy_setup.bin"))
    assert isinstance(found, Control)
    assert found.ends is None
    assert LeRobot().answer_control(found, {}) is None
    with pytest.raises(WireError, match="expected a TimedObservation"):
        LeRobot().read_request(golden("policy_setup.bin"))


def test_joints_come_in_the_order_of_the_setup_and_not_of_the_map() -> None:
    made = read_setup(setup("p", features(("b", "a"))))
    found = heard(seen(a=1.0, b=2.0), made)
    assert found.observation["state"].tolist() == [2.0, 1.0]


def test_numpys_numbers_are_joints_too() -> None:
    float32: Any = np.float32(1.5)
    found = heard(seen(float32, np.float64(2.5), 3), read_setup(setup("p")))
    assert found.observation["state"].tolist() == [1.5, 2.5, 3.0]


def test_renamed_features_have_their_new_names_and_the_robots_keys() -> None:
    renames = {"observation.images.front": "observation.images.top"}
    made = read_setup(setup("p", features(front=(2, 3, 3)), rename_map=renames))
    assert made.cameras == (Camera("images/top", "front", (2, 3, 3)),)
    found = heard(seen(1.0, 2.0, 3.0, front=np.ones((2, 3, 3), np.uint8)), made)
    assert found.observation["images"]["top"].sum() == 18


def test_what_no_feature_names_keeps_its_own_name() -> None:
    found = heard(seen(1.0, 2.0, 3.0, force=4.0), read_setup(setup("p")))
    assert found.observation["force"] == 4.0


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (seen(1.0, 2.0), r"state/gripper\.pos: expected a number, got keys shoulder_pan\.pos, elbow_flex\.pos"),
        (seen(1.0, 2.0, gripper=3.0), r"did you mean 'gripper'\?"),
        (seen(1.0, 2.0, **OPEN), "expected a number, got str"),
        (seen(1.0, 2.0, 3.0), "images/front: expected a picture"),
        (seen(1.0, 2.0, 3.0, **FRONT, images=4.0), "images: expected cameras under the client's own names"),
        (seen(1.0, timestep=-1), "timestep: expected a whole number from 0"),
        (seen(1.0, timestep=1 << 31), "timestep: expected a whole number"),
        (seen(1.0, timestamp=float("inf")), "timestamp: expected a finite number"),
        (pickled_observation(3), "observation: expected a map, got int"),
    ],
)
def test_an_observation_that_differs_from_its_setup_is_refused_with_its_path(message: bytes, expected: str) -> None:
    with pytest.raises(WireError, match=expected):
        heard(message, read_setup(setup("p", features(front=(2, 3, 3)))))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"told": 3}, "lerobot_features: expected a map of features"),
        ({"told": {"observation.state": 3}}, "lerobot_features/observation.state: expected a map with dtype"),
        ({"told": features(("a", "a"))}, "names: expected each name once"),
        ({"told": {"observation.state": {"dtype": "float32", "names": [1, 2]}}}, "expected the names of its numbers"),
        ({"told": features(front=FLAT)}, "shape: expected height, width and channels"),
        ({"told": features(front=(0, 3, 3))}, "shape: expected height, width and channels"),
        (
            {
                "told": features(a=(2, 3, 3), b=(2, 3, 3)),
                "rename_map": {"observation.images.a": "observation.images.b"},
            },
            "a name of its own",
        ),
        ({"rename_map": {"a": 3}}, "rename_map: expected a map of names"),
        ({"actions": 0}, "actions_per_chunk: expected a whole number from 1"),
        ({"policy": 3}, "pretrained_name_or_path: expected a text"),
        ({"module": "a b"}, "expected a module's name"),
    ],
)
def test_a_setup_that_says_what_it_must_not_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(WireError, match=expected):
        read_setup(setup(**{"policy": "p", **changes}))


def test_pictures_that_are_too_large_are_refused_before_one_is_made() -> None:
    made = read_setup(setup("p", features(front=(100_000, 100_000, 3))))
    with pytest.raises(WireError, match="images/front: expected a picture of at most 8192 pixels a side"):
        made.example()


def _by_value(member: FeatureType, _: int) -> Any:
    return type(member), (member.value,)


def _by_name(member: FeatureType, _: int) -> Any:
    return getattr, (type(member), member.name)


# As most Pythons write a member of an enum, and as early releases of 3.11 do, Debian 12's among them (3.11.2).
@pytest.mark.parametrize("reduced", [_by_value, _by_name])
def test_the_features_of_old_clients_say_neither_names_nor_the_order_of_axes(
    reduced: Callable[[FeatureType, int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureType, "__reduce_ex__", reduced)
    old = {
        "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
        "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 2, 4)),
    }
    made = read_setup(setup("p", old))
    assert not made.is_whole
    found = heard(seen(1.0, 2.0, 3.0, front=np.zeros((2, 4, 3), np.uint8)), made)
    assert found.observation["state"].tolist() == [1.0, 2.0, 3.0]
    assert found.observation["images"]["front"].shape == (2, 4, 3)


def test_a_text_is_refused_and_nobody_is_greeted() -> None:
    with pytest.raises(WireError, match="got a text"):
        LeRobot().read_message("hello")
    assert LeRobot().greeting({}) is None
