"""The families whose clients say more than observations, each in a session without a socket."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.dialect import ConversingDialect, ZeroCopyDialect
from policyserve.core.effects import Answered, Close, EndEpisode, Failed, Reuse
from policyserve.core.errors import PolicyFailed, WireError
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import by_name
from policyserve.server.greeting import metadata_of
from tests.dialects.families import ACTIONS, SPEC, STATE, answered, examples, packed, sent, session, submitted

FAMILIES = ["starvla", "roboarena", "dreamzero", "vllm_omni", "behavior1k", "molmospaces"]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_converses_and_is_greeted(name: str) -> None:
    assert isinstance(by_name(name), ConversingDialect)
    assert isinstance(by_name(name), ZeroCopyDialect) == (name in ("roboarena", "dreamzero", "vllm_omni"))
    _, effects = session(name)
    (greeting,) = sent(effects)
    told = by_name(name).read_greeting(greeting)
    assert ("policyserve" in told) == (name not in ("roboarena", "dreamzero"))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_familys_client_half_asks_and_reads_its_answer(name: str) -> None:
    one, _ = session(name)
    client = by_name(name)
    for _ in range(2):
        effects = one.receive(client.write_request({**STATE, "prompt": "go"}), 0.0)
        assert submitted(effects).observation["prompt"] == "go"
        reply = client.read_reply(answered(one, effects))
        has_one = name in ("behavior1k", "molmospaces")
        np.testing.assert_array_equal(reply.actions, ACTIONS[0] if has_one else ACTIONS)
        for row in (1, 2) if has_one else ():
            (message,) = sent(one.receive(client.write_request(STATE), 0.0))
            np.testing.assert_array_equal(client.read_reply(message).actions, ACTIONS[row])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_silent_client_of_any_family_is_greeted_and_settles_with_its_first_request(name: str) -> None:
    one, effects = session(None)
    assert sent(effects) == []
    (greeting,) = sent(one.silence())
    told = by_name(name).read_greeting(greeting)
    assert told["action_chunk_size"] == 3
    assert told["model_name"] == "policyserve"
    assert told["n_external_cameras"] == 1
    assert told["action_dim"] == 8
    request = {"images": {"0": np.zeros((2, 2, 3), np.uint8)}, **STATE}
    if name == "molmospaces":
        message = by_name(name).write_request({"state": {"arm": np.zeros(7)}, "prompt": "go"})
    else:
        message = by_name(name).write_request(request)
    one.receive(message, 0.0)
    assert one.dialect is not None
    assert one.dialect.name == {"dreamzero": "roboarena", "vllm_omni": "roboarena"}.get(name, name)


def test_what_the_policy_says_itself_goes_before_what_the_greeting_adds() -> None:
    spec = PolicySpec("arm", None, None, metadata={"action_chunk_size": 7, "action_space": "joint_velocity", "x": 1})
    one, _ = session(None, spec)
    told = by_name("openpi").read_greeting(sent(one.silence())[0])
    assert (told["action_chunk_size"], told["action_space"], told["x"]) == (7, "joint_velocity", 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bad_observation_is_told_in_the_familys_form_and_the_connection_stays(name: str) -> None:
    one, _ = session(name)
    client = by_name(name)
    effects = one.receive(client.write_request({"state": np.zeros(3)}), 0.0)
    with pytest.raises(Exception, match=r"state: expected float32 \(8,\), got float64 \(3,\)"):
        client.read_reply(sent(effects)[0])
    assert not [effect for effect in effects if isinstance(effect, Close)]
    assert client.read_reply(answered(one, one.receive(client.write_request(STATE), 0.0))).actions.shape[-1] == 8


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "message",
    ["a text", b"", b"\xc1", packed([1]), packed({"__ndarray__": True, "data": b"", "dtype": "<f4", "shape": [0]})],
)
def test_what_is_no_message_is_refused_and_kills_nothing(name: str, message: Any) -> None:
    one, _ = session(name)
    effects = one.receive(message, 0.0)
    (failed,) = [effect for effect in effects if isinstance(effect, Failed)]
    assert isinstance(failed.error, WireError)
    assert len(sent(effects)) == 1
    closes = [effect.code for effect in effects if isinstance(effect, Close)]
    assert closes == ([1011] if name == "starvla" else [])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_client_of_vibe_rls_is_told_where_it_belongs(name: str) -> None:
    one, _ = session(name)
    effects = one.receive(by_name("vibe_rl").write_request({"obs": np.zeros(4)}), 0.0)
    (close,) = [effect for effect in effects if isinstance(effect, Close)]
    assert close.code in (1008, 1011)
    assert "connect to /vibe_rl" in close.reason


# One action for each request


def test_behaviors_reset_drops_the_rows_and_is_not_answered() -> None:
    one, _ = session(None)
    one.silence()
    assert one.receive(packed({"reset": True}), 0.0) == []
    client = by_name("behavior1k")
    answered(one, one.receive(client.write_request(STATE), 0.0))
    assert any(isinstance(effect, Reuse) for effect in one.receive(client.write_request(STATE), 0.0))
    ended = one.receive(packed({"reset": True}), 0.0)
    assert ended == [EndEpisode(0)]
    assert submitted(one.receive(client.write_request(STATE), 0.0)).episode == 1


def test_extras_go_where_the_wire_has_a_place_for_them() -> None:
    for name in FAMILIES:
        one, _ = session(name)
        message = answered(one, one.receive(by_name(name).write_request(STATE), 0.0), note="hi")
        fields = by_name(name).read_reply(message).fields
        assert fields.get("note") == (None if name in ("dreamzero", "vllm_omni") else "hi"), name


@pytest.mark.parametrize("name", ["starvla", "roboarena", "behavior1k", "molmospaces"])
def test_an_extra_that_no_client_could_read_is_the_policys_fault(name: str) -> None:
    one, _ = session(name)
    submit = submitted(one.receive(by_name(name).write_request(STATE), 0.0))
    outcome = Answered(ActionChunk(ACTIONS, extras={"note": object()}), 0.0, 0.0)
    (failed,) = [effect for effect in one.answer(submit.ticket, outcome, 0.0) if isinstance(effect, Failed)]
    assert isinstance(failed.error, PolicyFailed)
    assert f"the answer cannot be read by {name}'s clients" in str(failed.error)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_key_that_cannot_be_sent_is_named(name: str) -> None:
    for bad in ({"state": object()}, [1], 4):
        with pytest.raises(WireError):
            by_name(name).write_request(bad)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


TWICE: dict[str, tuple[str, dict[str, Any], str]] = {
    "a camera": (
        "behavior1k",
        {f"{robot}:zed_link:Camera:0::rgb": np.zeros((2, 2, 3), np.uint8) for robot in "ab"},
        "images/head",
    ),
    "a state": ("behavior1k", {"a::proprio": np.zeros(2), "state": np.zeros(2)}, "state"),
    "cameras": (
        "behavior1k",
        {"a::zed_link::rgb": np.zeros((2, 2, 3), np.uint8), "images": 4},
        "images",
    ),
    "joints": ("molmospaces", {"qpos": {"arm": np.zeros(2)}, "state": np.zeros(2)}, "state"),
    "a text": ("starvla", {"examples": [{"lang": "a", "prompt": "b"}]}, "prompt"),
}


@pytest.mark.parametrize("what", TWICE)
def test_what_a_client_has_under_two_names_is_refused(what: str) -> None:
    name, message, path = TWICE[what]
    one, _ = session(name)
    effects = one.receive(by_name("openpi").write_request(message), 0.0)
    (failed,) = [effect for effect in effects if isinstance(effect, Failed)]
    assert isinstance(failed.error, WireError)
    assert failed.error.path == path


def test_an_action_beyond_float32_never_reaches_vllm_omnis_wire() -> None:
    one, _ = session("vllm_omni", PolicySpec("wide", {"state": ArraySpec((8,))}, ArraySpec((1,), "float64")))
    submit = submitted(one.receive(by_name("vllm_omni").write_request(STATE), 0.0))
    (told,) = sent(one.answer(submit.ticket, Answered(ActionChunk(np.array([1e300])), 0.0, 0.0), 0.0))
    assert "it is beyond them" in msgpack.unpackb(told)["message"]


# What comes in another order than it should


@pytest.mark.parametrize("name", ["starvla", "roboarena", "behavior1k"])
def test_a_client_that_asks_before_it_is_greeted_is_greeted_first(name: str) -> None:
    one, _ = session(None)
    message = {"endpoint": "infer", **STATE} if name == "roboarena" else {"robot_r1::proprio": STATE["state"]}
    effects = one.receive(examples("go") if name == "starvla" else by_name("openpi").write_request(message), 0.0)
    assert one.dialect is by_name(name)
    assert by_name(name).read_greeting(sent(effects)[0])
    assert by_name(name).read_reply(answered(one, effects)).actions.shape[-1] == 8


@pytest.mark.parametrize("name", ["roboarena", "starvla", "behavior1k"])
def test_messages_that_come_while_the_policy_loads_are_answered_in_their_order(name: str) -> None:
    control = {"roboarena": {"endpoint": "reset"}, "starvla": {"type": "ping"}, "behavior1k": {"reset": True}}[name]
    one = Session(by_name(name), max_pending=8)
    for message in (packed(control), by_name(name).write_request(STATE)):
        assert one.receive(message, 0.0) == []
    effects = one.serve(SPEC, metadata_of(SPEC))
    assert len(sent(effects)) == (1 if name == "behavior1k" else 2), "a greeting, and what the control is answered"
    assert by_name(name).read_reply(answered(one, effects)).actions.shape[-1] == 8


@pytest.mark.parametrize("name", ["roboarena", "vllm_omni", "starvla", "behavior1k"])
def test_a_control_is_no_observation_for_who_reads_these_alone(name: str) -> None:
    control: dict[str, dict[str, Any]] = {"starvla": {"type": "ping"}, "behavior1k": {"reset": True}}
    with pytest.raises(WireError, match=r"expected an observation, got '(reset|ping)'"):
        by_name(name).read_request(packed(control.get(name, {"endpoint": "reset"})))
    if name == "starvla":
        with pytest.raises(WireError, match="examples: expected a list"):
            by_name(name).read_request(packed({"lang": "go"}))


# What our clients are told by servers of others


BAD_ANSWERS: dict[str, list[Any]] = {
    "starvla": [{"data": {"actions": 4}}, {"data": 4}, {}],
    "roboarena": [{"server_timing": {}}, 4],
    "vllm_omni": [{"arm": {"nd": True}}, "x", 4],
    "behavior1k": [{"actions": 4}, [1]],
    "molmospaces": [{"server_timing": {"infer_ms": 3}}, {"arm": [1.0]}],
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_what_is_no_answer_is_a_wire_error(name: str) -> None:
    for bad in BAD_ANSWERS[name]:
        with pytest.raises(WireError):
            by_name(name).read_reply(packed(bad))


def test_parts_of_an_action_stand_side_by_side_or_are_refused() -> None:
    written = by_name("openpi").write_request({"arm": np.zeros((2, 7)), "gripper": np.ones((2, 1))})
    assert by_name("vllm_omni").read_reply(written).actions.shape == (2, 8)
    written = by_name("openpi").write_request({"arm": np.zeros((2, 7)), "gripper": np.ones((3, 1))})
    with pytest.raises(WireError, match=r"side by side, got arm \(2, 7\), gripper \(3, 1\)"):
        by_name("vllm_omni").read_reply(written)


@pytest.mark.parametrize("timing", [{"infer_ms": 3, "note": "x", "total_ms": 4.5}, 7])
def test_of_a_servers_timing_the_numbers_are_taken(timing: Any) -> None:
    reply = by_name("behavior1k").read_reply(
        by_name("openpi").write_request({"action": np.zeros(3), "server_timing": timing})
    )
    assert reply.timing == ({"infer_ms": 3.0, "total_ms": 4.5} if isinstance(timing, dict) else {})


def test_our_client_writes_cameras_as_the_simulator_does() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    written = by_name("behavior1k").write_request({"images": {"head": picture, "belly": picture}, **STATE})
    read = by_name("behavior1k").read_request(written).observation
    assert list(read["images"]) == ["head", "belly"]
    kept = by_name("behavior1k").read_request(packed({"rgb": 1, "x::rgb": 1, "a::b::depth": 2})).observation
    assert list(kept) == ["rgb", "x::rgb", "a::b::depth"]


def test_a_jpeg_is_a_picture_of_molmospaces_by_its_mark() -> None:
    jpeg = {"__image__": True, "format": "jpeg", "data": b"\xff\xd8"}
    read = by_name("molmospaces").read_request(packed({"wrist_camera": jpeg, "task": "go"})).observation
    assert list(read["images"]) == ["wrist_camera"]
