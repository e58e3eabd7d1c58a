"""XPolicyLab's messages: the original's bytes, its pairs, names of columns, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.dialect import ConversingDialect, for_policy, has_client, opening_of
from policyserve.core.effects import Answered, Close, Effect, EndEpisode, Send, Submit
from policyserve.core.errors import (
    BadObservation,
    ConfigError,
    DeadlineExceeded,
    NotReady,
    PolicyFailed,
    PolicyserveError,
    RemoteError,
    WireError,
    WrongDialect,
)
from policyserve.core.messages import Control, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import by_name
from policyserve.dialects.unpacking import unpack
from policyserve.dialects.xpolicylab import XPolicyLab
from policyserve.server.greeting import check_metadata
from tests.dialects import recorded
from tests.dialects.recorded import assert_same

WIRE = XPolicyLab()
AT_ONCE = Timing(0.0, 0.0, 0.0)
IDS = ("evaluation_id", "action_case_id", "trial_id", "repeat_index", "step", "message_id")


def golden(name: str) -> Any:
    return recorded.message("xpolicylab", name)


def content(name: str) -> Any:
    return recorded.content("xpolicylab", name)


def heard(name: str) -> Any:
    return WIRE.read_message(as_a_server_gets(golden(name)))


def at(control: Any, name: str) -> Any:
    """The same message, sent when the original's answer was: it has a clock of its own."""
    ids = {**control.context.ids, "sent_at": content(name)["sent_at"]}
    return control._replace(context=control.context._replace(ids=ids))


def written(kind: Any = "infer", payload: Any = None, **more: Any) -> memoryview:
    envelope = {
        "message_type": kind,
        "evaluation_id": "e",
        "trial_id": "t",
        "step": 3,
        "sent_at": "now",
        "message_id": "m",
    }
    message = {**envelope, "payload": {} if payload is None else payload, **more}
    return as_a_server_gets(msgpack.packb({key: value for key, value in message.items() if value != "absent"}) or b"")


def as_a_server_gets(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


# The original's bytes


def test_an_observation_is_read_to_its_values_under_this_packages_names() -> None:
    told = content("infer")["payload"]["observation"]
    images = {name: camera["color"] for name, camera in told["vision"].items()}
    expected = {"state": told["state"], "scalar": told["scalar"], "images": images, "prompt": told["instruction"]}
    request = heard("infer")
    assert isinstance(request, Request)
    assert_same(request.observation, expected)
    assert request.episode == "trial-1"
    assert request.context.groups == {"arm_joint_state": 7, "ee_joint_state": 1}


def test_what_else_a_camera_has_stays_under_the_wires_name() -> None:
    vision = {"head": {"color": 1, "depth": 2}, "wrist": {"color": 3}, "odd": 4}
    request = WIRE.read_request(written(payload={"observation": {"vision": vision, "images": 5}}))
    assert request.observation == {"vision": vision, "images": 5}
    request = WIRE.read_request(written(payload={"observation": {"vision": vision}}))
    assert request.observation == {
        "images": {"head": 1, "wrist": 3},
        "vision": {"head": {"depth": 2}, "odd": 4},
    }


def test_an_answer_is_the_originals_to_the_byte() -> None:
    told = content("infer_result")
    rows = [np.concatenate([step["arm_joint_state"], step["ee_joint_state"]]) for step in told["payload"]["actions"]]
    request = at(heard("infer"), "infer_result")
    timing = Timing(0.0, 0.0, told["payload"]["latency_ms"])
    assert WIRE.write_answer(ActionChunk(np.stack(rows)), timing, request.context) == golden("infer_result")


@pytest.mark.parametrize(("name", "answer"), [("reset", "reset_result"), ("trial_end", "trial_end_ack")])
def test_an_acknowledgement_is_the_originals_to_the_byte(name: str, answer: str) -> None:
    control = heard(name)
    assert control.ends == "trial-1"
    assert WIRE.answer_control(at(control, answer), {}) == golden(answer)


def test_a_hello_and_a_case_are_acknowledged_as_by_the_original() -> None:
    written_hello = WIRE.answer_control(at(heard("hello"), "hello_ack"), {})
    theirs = golden("hello_ack").replace(b"\xb2demo_policy_server", b"\xabpolicyserve")
    assert written_hello == theirs
    told = content("prepare_case_ack")
    asked = WIRE.read_message(written("prepare_case", **{key: told[key] for key in IDS}, sent_at=told["sent_at"]))
    assert isinstance(asked, Control)
    assert asked.ends is None
    assert WIRE.answer_control(asked, {}) == golden("prepare_case_ack")


def test_an_error_is_the_originals_to_the_byte_but_for_its_text() -> None:
    request = at(heard("infer_that_fails"), "error")
    told = WIRE.write_refusal(PolicyFailed("boom"), "", request.context)
    assert told.close_code is None
    assert told.message == golden("error").replace(b"\xa4boom", b"\xb3policy_failed: boom")


# Names of columns


def answered(actions: Any, wire: XPolicyLab = WIRE, state: Mapping[str, Any] | None = None) -> Any:
    context = WIRE.read_request(written(payload={"observation": state_of(state or {})})).context
    return unpack(wire.write_answer(ActionChunk(np.asarray(actions)), AT_ONCE, context), texts=True)["payload"]


def state_of(sizes: Mapping[str, int]) -> dict[str, Any]:
    return {"state": {name: marked(np.zeros(size, np.float32)) for name, size in sizes.items()}}


def marked(array: Any) -> Any:
    return {"nd": True, "type": array.dtype.str, "kind": "", "shape": list(array.shape), "data": array.tobytes()}


def test_columns_are_named_as_the_joint_states_of_the_request_are() -> None:
    arms = {"right_arm_joint_state": 2, "left_ee_joint_state": 1, "left_arm_joint_state": 2, "left_ee_pose": 7}
    steps = answered(np.arange(10.0).reshape(2, 5), state=arms)["actions"]
    assert [list(step) for step in steps] == [
        ["left_arm_joint_state", "left_ee_joint_state", "right_arm_joint_state"]
    ] * 2


def test_columns_are_named_as_the_policy_declares() -> None:
    wire = for_policy(WIRE, {"xpolicylab": {"actions": {"ee_pose": 7, "ee_joint_state": 1}}})
    assert isinstance(wire, XPolicyLab)
    steps = answered(np.zeros(8), wire, {"arm_joint_state": 7, "ee_joint_state": 1})["actions"]
    assert [list(step) for step in steps] == [["ee_pose", "ee_joint_state"]]
    assert for_policy(WIRE, {}) is WIRE


@pytest.mark.parametrize("state", [{}, {"arm_joint_state": 6}])
def test_actions_whose_columns_nobody_names_are_not_sent(state: dict[str, int]) -> None:
    with pytest.raises(PolicyFailed, match=r"whose columns have names.*PolicySpec\(metadata="):
        answered(np.zeros((2, 7)), state=state)
    with pytest.raises(PolicyFailed, match="whose columns have names"):
        answered(np.zeros((2, 2, 6)), state={"arm_joint_state": 6})


@pytest.mark.parametrize("declared", [3, {"actions": [7]}, {"actions": {"arm": 0}}, {"actions": {"arm": "7"}}])
def test_a_wrong_declaration_is_told_before_anybody_connects(declared: Any) -> None:
    spec = PolicySpec("named", None, None, metadata={"xpolicylab": declared})
    with pytest.raises(ConfigError, match="xpolicylab/actions: expected names and widths"):
        check_metadata(spec)
    one = Session(WIRE, max_pending=2)
    assert one.serve(spec, spec.metadata) == []


# The envelope


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"kind": "nonsense"}, "message_type"),
        ({"kind": "infer_result"}, "message_type"),
        ({"kind": 5}, "message_type"),
        ({"evaluation_id": "absent"}, "evaluation_id"),
        ({"payload": [1]}, "payload"),
        ({"payload": {}}, "payload/observation"),
        ({"payload": {"observation": 5}}, "payload/observation"),
        ({"payload": {"observation": {"nd": True, "type": "<f4", "shape": [0], "data": b""}}}, "payload/observation"),
        ({"payload": {"observation": {"x": {"nd": True, "type": "|O", "shape": [1], "data": b""}}}}, "x"),
        ({"payload": {"observation": {}, "trial_id": [1]}, "trial_id": "absent"}, "payload/trial_id"),
        ({"payload": {"observation": {}, "trial_id": "x" * 300}, "trial_id": None}, "payload/trial_id"),
    ],
)
def test_a_message_whose_id_is_known_is_refused_under_it(fields: dict[str, Any], path: str) -> None:
    refused = WIRE.read_message(written(**fields))
    assert isinstance(refused, Unreadable)
    assert getattr(refused.error, "path", None) == path
    message = WIRE.write_refusal(refused.error, "", refused.context).message
    assert isinstance(message, bytes)
    told = unpack(message, texts=True)
    assert (told["message_type"], told["message_id"], told["step"]) == ("error", "m", 3)
    is_unknown = path == "message_type"
    assert told["payload"]["code"] == ("unknown_message_type" if is_unknown else "invalid_frame")


@pytest.mark.parametrize(
    "fields",
    [{"message_id": "absent"}, {"message_id": 3}, {"message_id": "x" * 300}, {"step": [1]}, {"trial_id": b"t"}],
)
def test_a_message_without_a_usable_id_gets_no_answer(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        WIRE.read_message(written(**fields))
    told = WIRE.write_error(caught.value)
    assert (told.message, told.close_code) == (None, None)


def test_what_concerns_no_message_closes_the_connection() -> None:
    assert WIRE.write_error(NotReady("stopping")).close_code == 1013
    with pytest.raises(WrongDialect, match="connect to /openpi") as caught:
        WIRE.read_message(as_a_server_gets(by_name("openpi").write_request({"x": np.zeros(3)})))
    assert WIRE.write_error(caught.value).close_code == 1008


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (BadObservation("x", "y", "z"), "infer", "infer_failed"),
        (DeadlineExceeded("late"), "infer", "timeout"),
        (WireError("x", "y", "z"), "infer", "invalid_frame"),
        (PolicyFailed("x"), "reset", "reset_failed"),
        (PolicyFailed("x"), "hello", "internal"),
    ],
)
def test_errors_have_the_protocols_codes(error: PolicyserveError, kind: str, code: str) -> None:
    asked = WIRE.read_message(written(kind, {"observation": {}}))
    told = WIRE.write_refusal(error, "Traceback", asked.context)
    assert isinstance(told.message, bytes)
    payload = unpack(told.message, texts=True)["payload"]
    assert payload["code"] == code
    assert payload["message"].endswith("\nTraceback")
    assert payload["details"] == {}


# Whole conversations


SPEC = PolicySpec("moving", {"state": {"arm_joint_state": ArraySpec((2,))}}, ArraySpec((2,)), horizon=3)


def session() -> Session:
    made = Session(WIRE, max_pending=8)
    assert made.serve(SPEC, {}) == []
    return made


def told(effects: list[Effect]) -> list[Any]:
    sent = [unpack(effect.message, texts=True) for effect in effects if isinstance(effect, Send)]
    return [(message["message_type"], message["message_id"]) for message in sent]


def ask(one: Session, name: str, trial: str) -> int:
    observation = state_of({"arm_joint_state": 2})
    effects = one.receive(written(payload={"observation": observation}, message_id=name, trial_id=trial), 0.0)
    (submit,) = [effect for effect in effects if isinstance(effect, Submit)]
    return submit.ticket


def test_a_trial_is_an_episode_which_a_reset_ends() -> None:
    one = session()
    assert told(one.receive(written("hello", trial_id=None), 0.0)) == [("hello_ack", "m")]
    chunk = Answered(ActionChunk(np.zeros((3, 2), np.float32)), 0.0, 0.0)
    for trial in ("a", "b"):
        assert told(one.answer(ask(one, trial, trial), chunk, 0.0)) == [("infer_result", trial)]
    assert one.episodes == [0, 1]
    effects = one.receive(written("reset", {"trial_id": "a"}, trial_id=None, message_id="r"), 0.0)
    assert told(effects) == [("reset_result", "r")]
    assert [effect.episode for effect in effects if isinstance(effect, EndEpisode)] == [0]
    effects = one.receive(written("trial_end", trial_id="b"), 0.0)
    assert [effect.episode for effect in effects if isinstance(effect, EndEpisode)] == [1]
    assert told(one.receive(written("heartbeat"), 0.0)) == [("heartbeat_ack", "m")]


def test_a_close_gets_no_answer_and_ends_the_connection_behind_what_was_asked() -> None:
    one = session()
    ticket = ask(one, "last", "t")
    assert one.receive(written("close"), 0.0) == []
    effects = one.answer(ticket, Answered(ActionChunk(np.zeros((3, 2), np.float32)), 0.0, 0.0), 0.0)
    assert told(effects) == [("infer_result", "last")]
    assert effects[-1] == Close(1000, "")


def test_what_cannot_be_read_gets_no_answer_and_the_connection_stays() -> None:
    one = session()
    for message in (as_a_server_gets(b"\xc1"), "text", as_a_server_gets(b"\x01")):
        assert told(one.receive(message, 0.0)) == []
    assert not one.closed
    assert one.pending == 0


# The client's half


def asked(observation: Mapping[str, Any]) -> Any:
    return unpack(WIRE.write_request(observation), texts=True)


def test_an_observation_is_written_as_by_the_original() -> None:
    theirs = unpack(golden("infer"), texts=True)
    request = WIRE.read_request(as_a_server_gets(golden("infer")))
    ours = asked(request.observation)
    assert list(ours) == list(theirs)
    assert ours["payload"] == theirs["payload"]
    assert [type(ours[key]) for key in ("evaluation_id", "step", "message_id")] == [str, int, str]


def test_a_lone_state_goes_as_an_arms_so_that_actions_of_its_size_have_a_name() -> None:
    request = WIRE.read_request(WIRE.write_request({"state": np.arange(3.0)}))
    np.testing.assert_array_equal(request.observation["state"]["arm_joint_state"], np.arange(3.0))
    reply = WIRE.read_reply(WIRE.write_answer(ActionChunk(np.ones((2, 3))), Timing(0.0, 0.0, 1.5), request.context))
    np.testing.assert_array_equal(reply.actions, np.ones((2, 3)))
    assert reply.timing == {"latency_ms": 1.5}


def test_the_originals_answers_are_read() -> None:
    assert has_client(WIRE)
    assert isinstance(WIRE, ConversingDialect)
    assert WIRE.greeting({}) is None
    (hello,) = opening_of(WIRE)
    assert WIRE.read_message(hello)._replace(context=None) == Control("hello")  # type: ignore[union-attr]
    assert WIRE.read_greeting(golden("hello_ack")) == {"ok": True, "server": "demo_policy_server"}
    told = content("infer_result")["payload"]["actions"]
    reply = WIRE.read_reply(golden("infer_result"))
    rows = [np.concatenate([step["arm_joint_state"], step["ee_joint_state"]]) for step in told]
    np.testing.assert_array_equal(reply.actions, np.stack(rows))
    with pytest.raises(RemoteError, match=r"^boom$"):
        WIRE.read_reply(golden("error"))


COLUMN = {"nd": True, "type": "<f4", "kind": b"", "shape": [1], "data": bytes(4)}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"\xc1", "MessagePack"),
        (written("hello_ack"), "message_type: expected 'infer_result', got 'hello_ack'"),
        (written("infer_result", 3), "payload: expected a map, got int"),
        (written("infer_result", {"actions": []}), "payload/actions: expected a list of steps"),
        (written("infer_result", {"actions": [{"a": COLUMN}, {"a": COLUMN, "b": COLUMN}]}), "the same columns"),
        (written("infer_result", {"actions": [{"a": "far"}]}), "stand side by side, got none"),
    ],
)
def test_an_answer_that_is_none_is_named(message: Any, told: str) -> None:
    with pytest.raises(WireError, match=told):
        WIRE.read_reply(message)


def test_what_cannot_be_sent_is_named_by_its_path() -> None:
    with pytest.raises(WireError, match="state/arm"):
        WIRE.write_request({"state": {"arm": object()}})


def test_what_is_no_observation_is_no_request() -> None:
    with pytest.raises(WireError, match="'infer'"):
        WIRE.read_request(written("hello"))
    with pytest.raises(WireError):
        WIRE.read_request(written("nonsense"))


def test_an_answer_to_an_unknown_request_is_an_arms() -> None:
    reply = WIRE.read_reply(WIRE.write_reply(ActionChunk(np.zeros(2)), AT_ONCE))
    assert [list(step) for step in reply["actions"]] == [["arm_joint_state"]]
    with pytest.raises(PolicyFailed):
        WIRE.write_reply(ActionChunk(np.zeros((2, 2, 2))), AT_ONCE)
