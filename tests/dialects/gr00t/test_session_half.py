"""The server's half: every golden request is read, and answered to the byte in its own spelling."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve import ArraySpec, PolicySpec
from policyserve.core.dialect import ConversingDialect, for_policy
from policyserve.core.effects import Answered, EndEpisode, Send, Submit
from policyserve.core.errors import BadObservation, PolicyFailed, WireError
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Control, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.dialects import by_name
from policyserve.dialects.gr00t import Gr00t
from policyserve.dialects.gr00t.envelope import open_envelope, unmarked
from policyserve.dialects.gr00t.session_half import SessionHalf
from policyserve.dialects.gr00t.spellings import ND, NPY
from policyserve.dialects.unpacking import unpack
from tests.dialects.gr00t.golden import ACTIONS, ARM, golden, index, unsafe, values_in

TIMING = Timing(0, 0, 0)
ASKS = {"n15": "get_action", "n16": "get_action", "n17": "get_action_inspect_robots_0"}


def packed(message: Any, default: Any = NPY.write) -> bytes:
    made = msgpack.packb(message, default=default)
    assert isinstance(made, bytes)
    return made


def ask(observation: Any, spelling: Any = NPY, **beside: Any) -> bytes:
    return packed({"endpoint": "get_action", "data": observation, **beside}, spelling.write)


def unpacked(message: Any) -> Any:
    return NPY.unmark({"all": unpack(message, texts=True)})["all"]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and (one == other).all())
    return bool(one == other)


def test_it_is_a_dialect_that_converses_and_follows_the_policy() -> None:
    metadata = {**ARM.metadata, "spec": ARM.describe()}
    dialect = for_policy(by_name("gr00t"), metadata)
    assert isinstance(dialect, ConversingDialect)
    assert dialect is not for_policy(by_name("gr00t"), metadata)
    heard = dialect.read_message(golden("n16", "get_action"))
    assert isinstance(heard, Request)
    assert dialect.write_answer(ActionChunk(ACTIONS), TIMING, heard.context) == golden("n16", "get_action_reply")


@pytest.mark.parametrize("version", ASKS)
def test_every_golden_request_is_read_to_the_same_values(version: str) -> None:
    for name, content in index(version).items():
        if not name.endswith("_reply"):
            envelope = open_envelope(memoryview(bytearray(golden(version, name))))
            data = unmarked(envelope.data, NPY, WireLimits()) if envelope.data is not None else None
            assert same({"data": data}, {"data": values_in(content).get("data")})


@pytest.mark.parametrize("version", ASKS)
def test_an_answer_is_the_originals_byte_for_byte(version: str) -> None:
    half = SessionHalf(ARM)
    heard = half.read_message(golden(version, ASKS[version]))
    assert isinstance(heard, Request)
    actions = ACTIONS.astype(np.float64) if version == "n15" else ACTIONS  # N1.5 answers what its policy gives
    assert half.write_answer(ActionChunk(actions), TIMING, heard.context) == golden(version, "get_action_reply")


def test_pings_resets_and_unknown_endpoints_are_answered_as_the_original_answers_them() -> None:
    half = SessionHalf(ARM)
    for name, request in (("ping", golden("n16", "ping")), ("reset", golden("n17", "reset"))):
        heard = half.read_message(request)
        assert isinstance(heard, Control)
        assert half.answer_control(heard, {}) == golden("n16", f"{name}_reply")
        assert heard.ends == ("" if name == "reset" else None)
    heard = half.read_message(packed({"endpoint": "nope"}))
    assert isinstance(heard, Unreadable)
    assert half.write_refusal(heard.error, "", heard.context).message == golden("n16", "unknown_endpoint_reply")


def test_kill_is_refused_and_the_session_goes_on() -> None:
    half = SessionHalf(ARM)
    for message in (golden("n16", "kill"), unsafe("kill")):
        heard = half.read_message(message)
        assert isinstance(heard, Unreadable)
        reply = half.write_refusal(heard.error, "", heard.context)
        assert reply.close_code is None
        assert "no client may stop this server" in unpacked(reply.message)["error"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("npy_header_is_code", "data/observation/state/x: expected an .npy header"),
        ("npy_object_array", "data/observation/video/front: expected a bool, int, uint or float dtype"),
        ("n17_nd_object_array", "data/observation/state/x: expected an array of plain numbers"),
        ("torch_save_n10", "an archive of torch.save()"),
    ],
)
def test_what_would_run_code_elsewhere_is_refused_with_its_path(name: str, told: str) -> None:
    session = Session(by_name("gr00t"), max_pending=8)
    session.serve(ARM, {})
    effects = session.receive(memoryview(bytearray(unsafe(name))), 0.0)
    (sent,) = [effect.message for effect in effects if isinstance(effect, Send)]
    assert told in unpacked(sent)["error"]
    assert not session.closed


def test_keys_of_a_simulator_are_answered_with_keys_of_a_simulator() -> None:
    spec = PolicySpec("p", None, ArraySpec((6,)), horizon=4, metadata=ARM.metadata)
    half = SessionHalf(spec)
    heard = half.read_message(golden("n16", "get_action_flat_sim_keys"))
    assert isinstance(heard, Request)
    assert heard.observation["images"]["front"].shape == (2, 3, 3)
    assert heard.observation["state"]["single_arm"].shape == (5,)
    assert heard.observation["prompt"] == "pick"
    groups, info = unpacked(half.write_answer(ActionChunk(ACTIONS), TIMING, heard.context))
    assert {key: value.shape for key, value in groups.items()} == {
        "action.single_arm": (1, 4, 5),
        "action.gripper": (1, 4, 1),
    }
    assert info == {}


def test_an_answer_is_spelled_as_its_request_whoever_asked_before() -> None:
    half = SessionHalf(ARM)
    for spelling, marker in ((NPY, b"as_npy"), (ND, b"nd"), (NPY, b"as_npy")):
        state = {"single_arm": np.zeros((1, 1, 5), np.float32), "gripper": np.zeros((1, 1, 1), np.float32)}
        heard = half.read_message(ask({"observation": {"state": state}}, spelling))
        assert isinstance(heard, Request)
        answer = bytes(half.write_answer(ActionChunk(ACTIONS), TIMING, heard.context))  # type: ignore[arg-type]
        assert marker in answer


def test_a_clients_own_batch_is_answered_as_one() -> None:
    half = SessionHalf(ARM)
    for data, expected in (
        ({"observation": {"state": {"single_arm": np.zeros((2, 1, 5), np.float32)}}}, (2, 4, 5)),
        ({"state.single_arm": np.zeros((2, 1, 5))}, (2, 4, 5)),
        ({"state.single_arm": np.zeros((1, 1, 5))}, (1, 4, 5)),
    ):
        heard = half.read_message(ask(data))
        assert isinstance(heard, Request)
        actions = np.stack([ACTIONS, ACTIONS]) if expected[0] == 2 else ACTIONS
        answer = unpacked(half.write_answer(ActionChunk(actions), TIMING, heard.context))
        groups = answer[0] if isinstance(answer, list) else answer
        assert next(iter(groups.values())).shape == expected


def test_what_else_the_policy_says_stands_in_the_second_map() -> None:
    half = SessionHalf(ARM)
    heard = half.read_message(golden("n17", ASKS["n17"]))
    assert isinstance(heard, Request)
    _, info = unpacked(half.write_answer(ActionChunk(ACTIONS, extras={"value": np.float32(2)}), TIMING, heard.context))
    assert info == {"value": 2}
    with pytest.raises(PolicyFailed, match="cannot be read by gr00t's clients"):
        half.write_answer(ActionChunk(ACTIONS, extras={"value": object()}), TIMING, heard.context)


def test_modality_configs_are_n15s_once_the_client_has_shown_to_be() -> None:
    half = SessionHalf(ARM)
    asked = half.read_message(packed({"endpoint": "get_modality_config"}))
    assert isinstance(asked, Control)
    later = unpacked(half.answer_control(asked, {}))
    assert later["action"]["__ModalityConfig__"] is True
    half.read_message(golden("n15", "get_action"))
    assert isinstance(unpacked(half.answer_control(asked, {}))["action"]["as_json"], str)
    assert unpacked(SessionHalf(ARM).answer_control(asked, {})) == later


def test_a_server_of_n15_answers_a_client_that_has_shown_nothing_as_n15_does_and_a_later_one_once_it_shows() -> None:
    half = Gr00t(is_n15=True).for_policy({"spec": ARM.describe(), **ARM.metadata})
    asked = half.read_message(packed({"endpoint": "get_modality_config"}))
    assert isinstance(asked, Control)
    told = json.loads(unpacked(half.answer_control(asked, {}))["action"]["as_json"])
    assert told["modality_keys"] == ["action.single_arm", "action.gripper"]
    half.read_message(golden("n16", "get_action"))
    assert unpacked(half.answer_control(asked, {}))["action"]["__ModalityConfig__"] is True
    again = half.for_policy({"spec": ARM.describe(), **ARM.metadata})
    assert isinstance(unpacked(again.answer_control(asked, {}))["action"]["as_json"], str), "another session began so"


@pytest.mark.parametrize("data", [None, 3, [1], "text"])
def test_a_request_without_an_observation_is_refused(data: Any) -> None:
    heard = SessionHalf(ARM).read_message(ask(data))
    assert isinstance(heard, Unreadable)
    assert str(heard.error).startswith("data: expected an observation")


def test_a_traceback_follows_an_error_where_the_server_is_told_to_send_it() -> None:
    reply = SessionHalf(ARM).write_refusal(BadObservation("x", "a", "b"), "Traceback: …", None)
    assert unpacked(reply.message) == {"error": "bad_observation: x: expected a, got b\nTraceback: …"}


def test_a_reset_ends_the_episode_and_is_answered_in_its_turn() -> None:
    session = Session(by_name("gr00t"), max_pending=8)
    session.serve(ARM, {**ARM.metadata, "spec": ARM.describe()})
    (submit,) = [one for one in session.receive(golden("n16", "get_action"), 0.0) if isinstance(one, Submit)]
    assert session.receive(golden("n16", "reset"), 0.0) == []
    effects = session.answer(submit.ticket, Answered(ActionChunk(ACTIONS), 0.0, 0.0), 0.0)
    assert [type(effect) for effect in effects] == [EndEpisode, Send, Send]
    assert isinstance(effects[1], Send)
    assert isinstance(effects[2], Send)
    assert effects[1].message == golden("n16", "get_action_reply")
    assert effects[2].message == golden("n16", "reset_reply")


def test_read_request_takes_observations_alone() -> None:
    dialect = by_name("gr00t")
    assert dialect.read_request(golden("n16", "get_action")).observation["prompt"] == "pick and place"
    for message in (golden("n16", "ping"), golden("n16", "kill")):
        with pytest.raises(WireError):
            dialect.read_request(message)
    assert unpacked(dialect.write_error(WireError("", "a", "b")).message) == {"error": "bad_frame: expected a, got b"}


MARKED = {"nd": True, "type": "<f4", "kind": "", "shape": [0], "data": b""}
PICTURE = {"__image__": True, "format": "jpeg", "data": b""}


@pytest.mark.parametrize("marks", [MARKED, PICTURE])
def test_an_observation_that_its_keys_mark_as_something_else_is_refused(marks: dict[str, Any]) -> None:
    for data in (marks, {"observation": marks}, {"observation": {}, **marks}):
        heard = by_name("gr00t").read_message(packed({"endpoint": "get_action", "data": data}))  # type: ignore[attr-defined]
        assert isinstance(heard, Unreadable)
        assert "a map" in str(heard.error)
