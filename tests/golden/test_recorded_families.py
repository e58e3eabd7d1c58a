"""What starVLA, RoboArena, vLLM-Omni, BEHAVIOR-1K and MolmoSpaces wrote is read to its values, and written so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.dialect import ConversingDialect, for_policy
from policyserve.core.errors import BadObservation, PolicyFailed, RemoteError, WireError
from policyserve.core.messages import Control, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.dialects import Auto, by_name
from tests.dialects.recorded import assert_same, content, message

TIMING = Timing(0.0, 0.0, 0.0)


def dialect_of(name: str, **metadata: Any) -> Any:
    """The dialect as a session of a policy that says this speaks it."""
    found = for_policy(by_name(name), metadata)
    assert isinstance(found, ConversingDialect)
    return found


def heard(name: str, frame: str, family: str = "", **metadata: Any) -> Any:
    return dialect_of(name, **metadata).read_message(memoryview(bytearray(message(family or name, frame))))  # type: ignore[arg-type]


def answer(name: str, actions: Any, context: Any = None, timing: Timing = TIMING, **metadata: Any) -> Any:
    return dialect_of(name, **metadata).write_answer(ActionChunk(actions), timing, context)


def refusal(name: str, error: Exception, context: Any) -> Any:
    return dialect_of(name).write_refusal(error, "", context)


# Whose they are

FIRST = {
    ("roboarena", "infer"): "roboarena",
    ("roboarena", "reset"): "roboarena",
    ("molmospaces", "dreamzero_infer"): "roboarena",
    ("behavior1k", "reset_first_frame"): "behavior1k",
    ("behavior1k", "act"): "behavior1k",
    ("starvla", "infer_flat"): "starvla",
    ("starvla", "infer_enveloped"): "starvla",
    ("starvla", "ping"): "starvla",
    ("molmospaces", "infer"): "molmospaces",
    ("vllm_omni", "infer"): "openpi",  # its path alone tells it
}


@pytest.mark.parametrize(("family", "frame"), FIRST, ids=lambda it: it)
def test_a_first_message_after_the_greeting_tells_its_family(family: str, frame: str) -> None:
    assert Auto().settle(message(family, frame), greeted=True).name == FIRST[family, frame]


# starVLA


def test_starvlas_greeting_is_the_originals_where_the_policy_says_what_the_original_said() -> None:
    told = content("starvla", "greeting")
    assert by_name("starvla").greeting(told) == message("starvla", "greeting")
    assert_same(by_name("starvla").read_greeting(message("starvla", "greeting")), told)


def test_starvlas_request_is_read_with_pictures_by_their_order() -> None:
    request = heard("starvla", "infer_flat")
    (example,) = content("starvla", "infer_flat")["examples"]
    assert isinstance(request, Request)
    pictures = {str(place): picture for place, picture in enumerate(example["image"])}
    options = {"do_sample": False, "use_ddim": True, "num_ddim_steps": 10}
    assert_same(request.observation, {"prompt": "pick up the cup", "images": pictures, **options})
    assert_same(dialect_of("starvla").read_request(message("starvla", "infer_flat")).observation, request.observation)


def test_starvlas_envelope_is_read_and_its_number_repeated() -> None:
    request = heard("starvla", "infer_enveloped")
    (example,) = content("starvla", "infer_enveloped")["payload"]["examples"]
    assert list(request.observation) == ["prompt", "state", "images"]
    assert_same(request.observation["state"], example["state"][0])
    actions = content("starvla", "infer_enveloped_reply")["data"]["actions"]
    assert answer("starvla", actions[0], request.context) == message("starvla", "infer_enveloped_reply")
    assert_same(by_name("starvla").read_reply(message("starvla", "infer_enveloped_reply")).actions, actions[0])


def test_starvlas_answer_without_an_envelope_is_the_originals() -> None:
    actions = content("starvla", "infer_reply")["data"]["actions"][0]
    assert answer("starvla", actions, heard("starvla", "infer_flat").context) == message("starvla", "infer_reply")


def test_starvlas_ping_is_answered_byte_for_byte() -> None:
    ping = heard("starvla", "ping")
    assert isinstance(ping, Control)
    assert dialect_of("starvla").answer_control(ping, {}) == message("starvla", "ping_reply")


def test_starvlas_unknown_type_is_answered_byte_for_byte() -> None:
    found = dialect_of("starvla").read_message(b"\x82\xa4type\xa5reset\xaarequest_id\xa2r3")
    assert isinstance(found, Unreadable)
    told = refusal("starvla", found.error, found.context)
    assert (told.message, told.close_code) == (message("starvla", "unsupported_type_reply"), None)


def test_a_key_that_the_policy_does_not_list_is_refused_in_starvlas_form() -> None:
    assert isinstance(heard("starvla", "infer_bad_unnorm_key"), Request)
    found = heard("starvla", "infer_bad_unnorm_key", available_unnorm_keys=["franka"])
    assert isinstance(found, Unreadable)
    assert str(found.error) == "unnorm_key: expected one of franka, got 'nope'"
    told = by_name("starvla").read_greeting(refusal("starvla", found.error, found.context).message)
    theirs = content("starvla", "infer_error_reply")
    assert_same(told, {**theirs, "error": {"message": f"bad_observation: {found.error}"}})
    with pytest.raises(RemoteError, match="unnorm_key nope"):
        by_name("starvla").read_reply(message("starvla", "infer_error_reply"))


# RoboArena


@pytest.mark.parametrize("frame", ["greeting", "greeting_default", "greeting_cartesian_no_resize"])
@pytest.mark.parametrize("name", ["roboarena", "dreamzero"])
def test_roboarenas_greeting_has_six_keys_byte_for_byte(name: str, frame: str) -> None:
    told = content("roboarena", frame)
    assert by_name(name).greeting({**told, "robot": "arm", "policyserve": "1"}) == message("roboarena", frame)


@pytest.mark.parametrize("frame", ["infer", "infer_that_fails"])
def test_roboarenas_request_keeps_its_names_and_tells_its_episode(frame: str) -> None:
    request = heard("roboarena", frame)
    expected = {key: value for key, value in content("roboarena", frame).items() if key != "endpoint"}
    assert_same(request.observation, expected)
    assert request.episode == "38DSA3hd3"
    assert by_name("roboarena").write_request(request.observation) == message("roboarena", frame)


def test_roboarenas_answer_is_a_map_and_dreamzeros_an_array() -> None:
    actions = content("roboarena", "infer_reply_map")["actions"]
    context = heard("roboarena", "infer").context
    assert answer("roboarena", actions, context) == message("roboarena", "infer_reply_map")
    bare = content("roboarena", "infer_reply_bare_array_before_2026_02")
    assert answer("dreamzero", bare, context) == message("roboarena", "infer_reply_bare_array_before_2026_02")
    for frame in ("infer_reply_map", "infer_reply_bare_array_before_2026_02"):
        assert_same(by_name("roboarena").read_reply(message("roboarena", frame)).actions, actions)


def test_roboarenas_reset_is_answered_by_a_text() -> None:
    reset = heard("roboarena", "reset")
    assert (reset.kind, reset.ends) == ("reset", "38DSA3hd3")
    told = dialect_of("roboarena").answer_control(reset, {})
    assert told == message("roboarena", "reset_reply_text") == message("molmospaces", "dreamzero_reset_reply")


def test_roboarenas_traceback_is_raised() -> None:
    with pytest.raises(RemoteError, match="Traceback"):
        by_name("roboarena").read_reply(message("roboarena", "traceback_text"))


def test_dreamzeros_client_is_answered_in_its_own_spelling() -> None:
    request = heard("roboarena", "dreamzero_infer", "molmospaces")
    assert request.episode == "abc"
    expected = {key: value for key, value in content("molmospaces", "dreamzero_infer").items() if key != "endpoint"}
    assert_same(request.observation, expected)
    written = answer("roboarena", np.arange(16, dtype=np.float32).reshape(2, 8), request.context)
    assert b"nd" in written
    assert b"__ndarray__" not in written
    assert_same(by_name("roboarena").read_reply(written).actions, np.arange(16, dtype=np.float32).reshape(2, 8))


# vLLM-Omni


def test_vllm_omnis_greeting_is_the_models_own_map() -> None:
    told, written = content("vllm_omni", "greeting"), by_name("vllm_omni").greeting(content("vllm_omni", "greeting"))
    assert by_name("vllm_omni").read_greeting(written or b"") == told


def test_vllm_omnis_answers_are_arrays_or_maps_of_parts() -> None:
    request = heard("vllm_omni", "infer")
    assert_same(request.observation, content("vllm_omni", "infer"))
    assert request.episode == "s1"
    actions = content("vllm_omni", "infer_reply")
    assert answer("vllm_omni", actions.astype(np.float64), request.context) == message("vllm_omni", "infer_reply")
    assert message("vllm_omni", "infer_msgpack_numpy_markers_reply") == message("vllm_omni", "infer_reply")
    parts = content("vllm_omni", "infer_map_reply_reply")
    assert answer("vllm_omni", parts["arm"], modality={"arm": 7}) == message("vllm_omni", "infer_map_reply_reply")
    assert_same(by_name("vllm_omni").read_reply(message("vllm_omni", "infer_map_reply_reply")).actions, parts["arm"])


def test_vllm_omnis_reset_and_errors_are_maps_and_the_connection_stays() -> None:
    reset = heard("vllm_omni", "reset")
    assert (reset.kind, reset.ends) == ("reset", "s1")
    assert dialect_of("vllm_omni").answer_control(reset, {}) == message("vllm_omni", "reset_reply")
    told = refusal("vllm_omni", PolicyFailed("Internal inference error"), None)
    theirs = content("vllm_omni", "infer_that_fails_reply")
    assert_same(
        by_name("vllm_omni").read_greeting(told.message), {**theirs, "message": f"policy_failed: {theirs['message']}"}
    )
    assert told.close_code is None
    with pytest.raises(RemoteError, match="Invalid request payload"):
        by_name("vllm_omni").read_reply(message("vllm_omni", "not_a_map_reply"))


# BEHAVIOR-1K


def test_behaviors_greeting_is_the_policys_map() -> None:
    assert by_name("behavior1k").greeting({"policy": "b1k"}) == message("behavior1k", "greeting")


@pytest.mark.parametrize("frame", ["reset", "reset_first_frame"])
def test_behaviors_reset_gets_no_answer(frame: str) -> None:
    reset = heard("behavior1k", frame)
    assert (reset.kind, reset.ends) == ("reset", "")
    assert dialect_of("behavior1k").answer_control(reset, {}) is None


def test_behaviors_request_is_read_by_roles_without_alpha() -> None:
    told = content("behavior1k", "act")
    left, right, head, proprio, poses, task = told.values()
    expected = {
        "state": proprio,
        "robot_r1::cam_rel_poses": poses,
        "task_id": task,
        "images": {"left_wrist": left[..., :3], "right_wrist": right[..., :3], "head": head[..., :3]},
    }
    assert_same(heard("behavior1k", "act").observation, expected)
    number = int(task[0])
    by_number: list[Any] = [{str(number): "tidy up"}, ["?"] * number + ["tidy up"]]
    for prompts in by_number:
        assert_same(heard("behavior1k", "act", task_prompts=prompts).observation, {"prompt": "tidy up", **expected})
    assert "prompt" not in heard("behavior1k", "act", task_prompts={"99": "other"}).observation


@pytest.mark.parametrize("frame", ["reply_first", "reply_second_with_prev_total", "reply_third"])
def test_behaviors_answer_is_one_action_byte_for_byte(frame: str) -> None:
    told = content("behavior1k", frame)
    times = told["server_timing"]
    timing = Timing(0.0, times["infer_ms"], 0.0, times.get("prev_total_ms"))
    assert answer("behavior1k", told["action"], None, timing) == message("behavior1k", frame)
    reply = by_name("behavior1k").read_reply(message("behavior1k", frame))
    assert_same(reply.actions, told["action"])
    assert reply.timing == times


# MolmoSpaces


def test_molmospaces_messages_are_the_recorded_ones() -> None:
    assert by_name("molmospaces").greeting({"model_name": "toy"}) == message("molmospaces", "greeting")
    told = content("molmospaces", "infer")
    request = heard("molmospaces", "infer")
    cameras = {name: told[name] for name in ("wrist_camera", "exo_camera_1")}
    assert_same(request.observation, {"state": told["qpos"], "prompt": told["task"], "images": cameras})
    sent = {"images": cameras, "state": told["qpos"], "prompt": told["task"]}
    assert by_name("molmospaces").write_request(sent) == message("molmospaces", "infer")
    reply = content("molmospaces", "infer_reply")
    actions, timing = np.concatenate([reply["arm"], reply["gripper"]]), Timing(0.0, 3.2, 4.4)
    assert answer("molmospaces", actions, None, timing) == message("molmospaces", "infer_reply")
    assert answer("molmospaces", actions, None, timing, modality={"arm": 7, "gripper": 1}) == message(
        "molmospaces", "infer_reply"
    )
    assert_same(by_name("molmospaces").read_reply(message("molmospaces", "infer_reply")).actions, actions)


def test_molmospaces_wants_to_know_the_parts_of_an_action() -> None:
    with pytest.raises(PolicyFailed, match="say which parts the 7 numbers are, as metadata"):
        answer("molmospaces", np.zeros(7))
    with pytest.raises(PolicyFailed, match=r"expected groups of 7 numbers in all, got arm 7 \+ gripper 1 = 8"):
        answer("molmospaces", np.zeros(7), modality={"arm": 7, "gripper": 1})


@pytest.mark.parametrize("error", [WireError("x", "a", "b"), BadObservation("x", "a", "b")])
@pytest.mark.parametrize("name", ["roboarena", "behavior1k", "molmospaces"])
def test_a_refusal_is_a_text_and_the_connection_stays(name: str, error: Any) -> None:
    told = refusal(name, error, None)
    assert (told.message, told.close_code) == (f"{error.code}: x: expected a, got b", None)
