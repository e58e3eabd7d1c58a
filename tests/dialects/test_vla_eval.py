"""vla-eval's messages: the original's bytes both ways, its envelope, and what is refused in it."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.dialect import ConversingDialect, has_client, opening_of
from policyserve.core.effects import Answered, Close, Effect, EndEpisode, Send, Submit
from policyserve.core.errors import (
    BadObservation,
    NotReady,
    PolicyFailed,
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
from policyserve.dialects.vla_eval import VlaEval
from tests.dialects import recorded
from tests.dialects.recorded import assert_same
from tests.policies.frameworks import import_or_skip

WIRE = VlaEval()
AT_ONCE = Timing(0.0, 0.0, 0.0)
TEXT = b"observation_failed: ValueError: boom"
SEVEN = np.array([-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1], np.float32)


def golden(name: str) -> Any:
    return recorded.message("vla_eval", name)


def content(name: str) -> Any:
    return recorded.content("vla_eval", name)


def heard(name: str) -> Any:
    return WIRE.read_message(as_a_server_gets(golden(name)))


def written(kind: Any, payload: Any = None, seq: Any = 7, **more: Any) -> memoryview:
    message = {"type": kind, "payload": {} if payload is None else payload, "seq": seq, "timestamp": 2.5, **more}
    return as_a_server_gets(msgpack.packb(message) or b"")


def as_a_server_gets(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


# The original's bytes


@pytest.mark.parametrize("name", ["observation_png", "observation_raw", "observation_that_fails"])
def test_an_observation_is_read_to_its_values_under_this_packages_names(name: str) -> None:
    if name == "observation_png":
        import_or_skip("PIL")
    expected = content(name)["payload"]
    for theirs, ours in (("task_description", "prompt"), ("states", "state")):
        if theirs in expected:
            expected[ours] = expected.pop(theirs)
    request = heard(name)
    assert isinstance(request, Request)
    assert_same(request.observation, expected)


@pytest.mark.parametrize(
    ("request_name", "answer_name"),
    [("observation_png", "action_1"), ("observation_raw", "action_3")],
)
def test_an_action_is_the_originals_to_the_byte(request_name: str, answer_name: str) -> None:
    """The time apart, which is the original's own clock: it is given to our request here."""
    asked, told = heard(request_name), content(answer_name)
    assert asked.context.seq == told["seq"]
    context = asked.context._replace(sent_at=told["timestamp"])
    assert WIRE.write_answer(ActionChunk(SEVEN), AT_ONCE, context) == golden(answer_name)
    assert WIRE.write_answer(ActionChunk(SEVEN.astype(np.float64)), AT_ONCE, context) == golden(answer_name)


def test_a_chunk_and_an_error_are_the_originals_to_the_byte() -> None:
    told = content("action_chunk")
    context = heard("observation_raw").context._replace(seq=told["seq"], sent_at=told["timestamp"])
    assert WIRE.write_answer(ActionChunk(told["payload"]["actions"]), AT_ONCE, context) == golden("action_chunk")
    told, asked = content("error"), heard("observation_that_fails")
    text = WIRE.write_refusal(PolicyFailed("boom"), "", asked.context._replace(sent_at=told["timestamp"])).message
    assert isinstance(text, bytes)
    expected = golden("error").replace(bytes((0xD9, len(TEXT))) + TEXT, b"\xb3policy_failed: boom")
    assert text == expected


def test_a_hello_is_answered_as_the_original_does_to_the_byte() -> None:
    told, said = content("hello_reply"), heard("hello")
    assert (said.kind, said.ends) == ("hello", None)
    keys = ("model_server", "observation_params", "action_spec", "observation_spec")
    declared = {"vla_eval": {key: told["payload"][key] for key in keys}}
    control = said._replace(context=said.context._replace(sent_at=told["timestamp"]))
    assert WIRE.answer_control(control, declared) == golden("hello_reply")


def test_the_clients_half_reads_what_the_original_server_writes() -> None:
    for name in ("action_1", "action_3", "action_odd", "action_chunk", "action_after_error"):
        reply = WIRE.read_reply(golden(name))
        assert_same(reply.actions, content(name)["payload"]["actions"])
        assert reply.timing == {}
    assert_same(WIRE.read_greeting(golden("hello_reply")), content("hello_reply")["payload"])
    with pytest.raises(RemoteError, match="observation_failed: ValueError: boom"):
        WIRE.read_reply(golden("error"))
    for name in ("hello_reply", "episode_start"):
        with pytest.raises(WireError, match="'action'"):
            WIRE.read_reply(golden(name))
    with pytest.raises(WireError, match="'hello'"):
        WIRE.read_greeting(golden("action_1"))


def test_the_clients_half_writes_what_the_original_client_does_to_the_byte() -> None:
    """But for the number and the time."""
    expected, payload = content("observation_raw"), content("observation_raw")["payload"]
    ours, theirs = WIRE.write_request(payload), golden("observation_raw")
    assert len(ours) == len(theirs)
    read = unpack(ours, texts=True)
    assert (read["seq"], read["timestamp"]) == (3, 0.0)
    assert ours.replace(b"\xa3seq\x03", b"\xa3seq\x05")[:-8] == theirs[:-8]
    assert expected["seq"] == 5
    opening = [unpack(message, texts=True) for message in opening_of(WIRE)]
    assert [(message["type"], message["seq"]) for message in opening] == [("hello", 1), ("episode_start", 2)]
    assert opening[0]["payload"] == {key: content("hello")["payload"][key] for key in opening[0]["payload"]}
    assert has_client(WIRE)


def test_the_clients_half_names_what_it_cannot_send_or_read() -> None:
    with pytest.raises(WireError, match="images/odd: expected an array of numbers"):
        WIRE.write_request({"images": {"odd": object()}})
    with pytest.raises(WireError, match="payload/actions: expected an action, got keys other"):
        WIRE.read_reply(bytes(written("action", {"other": 1})))
    assert WIRE.read_reply(bytes(written("action", {"action": [1.5]}))).actions == [1.5]
    for message in (b"\x01", b"\xc1", "text"):
        with pytest.raises(WireError):
            WIRE.read_reply(message)
        with pytest.raises(WireError):
            WIRE.read_message(message)


def test_the_beginning_and_the_end_of_an_episode_get_no_answer() -> None:
    for name, is_live in (("episode_start", False), ("episode_end", False)):
        control = heard(name)
        assert (control.kind, control.ends, control.newest_only) == (name, "", is_live)
        assert WIRE.answer_control(control, {}) is None


# The envelope


def test_an_answer_repeats_the_number_and_moves_the_clients_clock_on() -> None:
    request = WIRE.read_message(written("observation", {"states": 1}))
    assert isinstance(request, Request)
    assert request.observation == {"state": 1}
    message = unpack(WIRE.write_answer(ActionChunk(SEVEN), Timing(1.0, 2.0, 500.0), request.context), texts=True)
    assert (message["seq"], message["timestamp"]) == (7, 3.0)
    reply = WIRE.read_reply(WIRE.write_reply(ActionChunk(SEVEN), Timing(1.0, 2.0, 500.0)))
    assert reply.timing == {"latency_ms": 500.0}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"kind": "nonsense"}, "type"),
        ({"kind": "action"}, "type"),
        ({"kind": ["observation"]}, "type"),
        ({"payload": [1]}, "payload"),
        ({"payload": "text"}, "payload"),
        ({"payload": {"__ndarray__": True, "data": b"", "dtype": "<f4", "shape": [0]}}, "payload"),
        ({"payload": {"x": {"__ndarray__": True, "data": b"\0" * 8, "dtype": "|O", "shape": [1]}}}, "x"),
        ({"payload": {"a": {"b": {"__ndarray__": True, "data": b"", "dtype": "<f4", "shape": [1]}}}}, "a/b"),
        ({"payload": {"a": {"__image__": True, "format": "png"}}}, "a"),
    ],
)
def test_a_message_whose_number_is_known_is_refused_under_it(fields: dict[str, Any], path: str) -> None:
    message = written(**{"kind": "observation", **fields})
    refused = WIRE.read_message(message)
    assert isinstance(refused, Unreadable)
    assert refused.context.seq == 7
    assert getattr(refused.error, "path", None) == path
    with pytest.raises(WireError):
        WIRE.read_request(message)


@pytest.mark.parametrize("key", ["type", "payload", "timestamp"])
def test_a_message_without_one_of_the_four_is_refused(key: str) -> None:
    message = {"type": "observation", "payload": {}, "seq": 4, "timestamp": 0.0}
    del message[key]
    refused = WIRE.read_message(as_a_server_gets(msgpack.packb(message) or b""))
    assert isinstance(refused, Unreadable)
    assert (refused.context.seq, getattr(refused.error, "path", None)) == (4, key)


@pytest.mark.parametrize("seq", [None, "3", 3.0, True, [3]])
def test_a_message_without_a_number_is_refused_under_none(seq: Any) -> None:
    with pytest.raises(WireError, match="number"):
        WIRE.read_message(written("observation", seq=seq))
    told = WIRE.write_error(WireError("seq", "a number", "none"))
    assert told.close_code is None
    assert isinstance(told.message, bytes)
    assert unpack(told.message, texts=True)["seq"] == 0


def test_another_familys_message_is_sent_to_its_path() -> None:
    with pytest.raises(WrongDialect, match="connect to /openpi") as caught:
        WIRE.read_message(as_a_server_gets(by_name("openpi").write_request({"x": SEVEN})))
    told = WIRE.write_error(caught.value)
    assert told.close_code == 1008
    assert told.message is not None


def test_unsafe_messages_of_the_golden_set_are_refused() -> None:
    data = recorded.message("unsafe", "vla_eval_object_dtype")
    assert isinstance(data, bytes)
    refused = WIRE.read_message(as_a_server_gets(data))
    assert isinstance(refused, Unreadable)
    assert "|O" in str(refused.error)


def test_an_action_beyond_float32_is_not_sent() -> None:
    with pytest.raises(PolicyFailed, match="float32"):
        WIRE.write_reply(ActionChunk(np.array([1e300])), AT_ONCE)
    whole = WIRE.read_reply(WIRE.write_reply(ActionChunk(np.array([3], np.int64)), AT_ONCE))
    assert whole.actions.dtype == np.int64


@pytest.mark.parametrize("dtype", ["|u1", "<f4"])
def test_a_picture_may_be_raw_bytes(dtype: str) -> None:
    raw = {"__image__": True, "format": "raw", "data": bytes(range(48)), "dtype": dtype}
    sizes = [4, 4, 3] if dtype == "|u1" else [4, 3]
    found = WIRE.read_request(written("observation", {"images": {"a": {**raw, "shape": sizes}}})).observation
    assert_same(found["images"]["a"], np.frombuffer(bytes(range(48)), dtype).reshape(sizes))
    for wrong in ({"shape": [5]}, {"shape": sizes, "dtype": "|O"}, {}):
        refused = WIRE.read_message(written("observation", {"images": {"a": {**raw, **wrong}}}))
        assert isinstance(refused, Unreadable)
        assert getattr(refused.error, "path", None) == "images/a"


def test_the_robots_state_is_known_by_each_of_its_names() -> None:
    for payload, expected in (
        ({"states": 1, "controller_states": 2}, {"state": 1, "controller_states": 2}),
        ({"controller_states": 2}, {"state": 2}),
        ({"state": 3, "states": 1}, {"state": 3, "states": 1}),
        ({"task_description": "go", "prompt": "stay"}, {"task_description": "go", "prompt": "stay"}),
    ):
        assert WIRE.read_request(written("observation", payload)).observation == expected


# Whole conversations

SPEC = PolicySpec("stepping", {"state": ArraySpec((2,))}, ArraySpec((2,)), horizon=3)


def session() -> Session:
    made = Session(WIRE, max_pending=8)
    assert made.serve(SPEC, {"spec": SPEC.describe(), "policyserve": "0.1"}) == []
    return made


def told(effects: list[Effect]) -> list[Any]:
    sent = [unpack(effect.message, texts=True) for effect in effects if isinstance(effect, Send)]
    return [(message["type"], message["seq"]) for message in sent]


def submitted(effects: list[Effect]) -> list[int]:
    return [effect.ticket for effect in effects if isinstance(effect, Submit)]


def see(one: Session, seq: int) -> list[Effect]:
    state = {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2]}
    return one.receive(written("observation", {"states": state}, seq), 0.0)


def rows(first: float = 0.0) -> Answered:
    return Answered(ActionChunk(np.arange(6, dtype=np.float32).reshape(3, 2) + first), 0.0, 0.0)


def test_an_episode_is_asked_for_once_in_a_chunk_and_its_beginning_drops_the_rest() -> None:
    one = session()
    assert told(one.receive(written("hello", seq=1), 0.0)) == [("hello", 1)]
    assert told(one.receive(written("episode_start", {"task": {}}, 2), 0.0)) == []
    (ticket,) = submitted(see(one, 3))
    assert told(one.answer(ticket, rows(), 0.0)) == [("action", 3)]
    assert told(see(one, 4)) == [("action", 4)]
    assert [type(effect) for effect in one.receive(written("episode_start", {}, 5), 0.0)] == [EndEpisode]
    assert len(submitted(see(one, 6))) == 1


def test_an_error_answers_its_message_and_the_connection_stays() -> None:
    one = session()
    effects = one.receive(written("observation", {"states": "text"}, 9), 0.0)
    assert told(effects) == [("error", 9)]
    assert told(one.receive(memoryview(bytearray(b"\xc1")), 0.0)) == [("error", 0)]
    assert told(one.receive("text", 0.0)) == [("error", 0)]
    assert not one.closed
    (ticket,) = submitted(see(one, 10))
    assert told(one.answer(ticket, PolicyFailed("boom"), 0.0)) == [("error", 10)]
    assert not one.closed
    end = one.fail(NotReady("loading failed"))
    assert told(end) == [("error", 0)]
    assert isinstance(end[-1], Close)


def test_what_the_client_only_tells_is_answered_by_nothing() -> None:
    one = session()
    assert told(one.receive(written("error", {"error": "mine"}, 3), 0.0)) == []
    assert told(one.receive(written("episode_start", [1], 4), 0.0)) == []
    assert not one.closed


# Live: observations come at the control rate, and the newest one counts


def live() -> Session:
    one = session()
    assert one.receive(written("episode_start", {"task": {}, "mode": "live"}, 1), 0.0) == []
    return one


def test_of_the_observations_that_come_while_the_policy_works_the_last_is_asked_next() -> None:
    one = live()
    (first,) = submitted(see(one, 2))
    assert [submitted(see(one, seq)) for seq in (3, 4, 5)] == [[], [], []]
    assert one.pending == 2, "the one that is asked, and the newest"
    chunk = Answered(ActionChunk(np.zeros((1, 2), np.float32)), 0.0, 0.0)
    effects = one.answer(first, chunk, 0.0)
    assert told(effects) == [("action", 2)]
    (next_one,) = submitted(effects)
    assert told(one.answer(next_one, chunk, 0.0)) == [("action", 5)]
    assert one.pending == 0


def test_the_newest_observation_takes_the_next_row_where_one_is_left() -> None:
    one = live()
    (first,) = submitted(see(one, 2))
    see(one, 3)
    see(one, 4)
    assert told(one.answer(first, rows(), 0.0)) == [("action", 2), ("action", 4)]
    assert told(see(one, 5)) == [("action", 5)]


def test_an_observation_that_waits_is_asked_even_if_the_one_before_fails() -> None:
    one = live()
    (first,) = submitted(see(one, 2))
    see(one, 3)
    effects = one.answer(first, PolicyFailed("boom"), 0.0)
    assert told(effects) == [("error", 2)]
    assert len(submitted(effects)) == 1


@pytest.mark.parametrize("mode", ["live", None])
def test_an_observation_that_waits_is_dropped_with_its_episode(mode: str | None) -> None:
    one = live()
    (first,) = submitted(see(one, 2))
    see(one, 3)
    assert one.receive(written("episode_start", {"mode": mode}, 4), 0.0) == []
    effects = one.answer(first, rows(), 0.0)
    assert told(effects) == [("action", 2)]
    assert submitted(effects) == []
    assert one.pending == 0
    (first,) = submitted(see(one, 5))
    assert len(submitted(see(one, 6))) == (0 if mode == "live" else 1)


def test_a_session_that_drains_asks_nothing_more() -> None:
    one = live()
    (first,) = submitted(see(one, 2))
    see(one, 3)
    assert one.drain() == []
    effects = one.answer(first, rows(), 0.0)
    assert told(effects) == [("action", 2)]
    assert submitted(effects) == []
    assert one.closed


def test_it_is_a_dialect_that_hears_more_than_observations() -> None:
    assert isinstance(WIRE, ConversingDialect)
    assert isinstance(WIRE.read_message(written("hello")), Control)
    with pytest.raises(WireError, match="'hello'"):
        WIRE.read_request(written("hello"))
    assert WIRE.greeting({}) is None
    assert isinstance(BadObservation("", "", ""), Exception)
