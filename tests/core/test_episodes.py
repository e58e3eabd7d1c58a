"""Episodes and rows of chunks: what a dialect that says more than observations can have a session do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from policyserve.core.dialect import ConversingDialect, ErrorReply
from policyserve.core.effects import Answered, Close, Effect, EndEpisode, Mapped, Reuse, Send, Submit
from policyserve.core.errors import PolicyFailed, PolicyserveError, WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.mapping import KeyMap
from policyserve.core.messages import Control, Heard, Message, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import by_name
from policyserve.dialects.server_only import ServerOnly

SPEC = PolicySpec("stepping", {"x": ArraySpec((2,))}, ArraySpec((2,)), horizon=3)


class Toy(ServerOnly):
    """Requests {"n": 7, "x": [1, 2]}; what else it hears is in capitals. Answers repeat n."""

    name = "toy"
    greets = False

    def __init__(self, one_action: bool = True) -> None:
        self.one_action = one_action

    def read_message(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Heard:
        assert isinstance(message, str)
        if message.startswith("BYE"):
            return Control("bye", closes=True)
        if message.startswith("END"):
            return Control("end", ends=message[3:].strip())
        if message.startswith("PING"):
            return Control("ping", context=message[4:])
        if not message.startswith("{"):
            raise WireError("", "a map", "something else")
        fields = json.loads(message)
        if "x" not in fields:
            return Unreadable(WireError("x", "two numbers", "nothing"), fields["n"])
        observation = {"x": np.asarray(fields["x"], np.float32)}
        return Request(observation, False, fields["n"], fields.get("episode", ""), fields.get("begins", False))

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> Message:
        return json.dumps({"n": context, "actions": chunk.actions.tolist()})

    def write_refusal(self, error: PolicyserveError, detail: str, context: Any) -> ErrorReply:
        return ErrorReply(f"{context}: {error.code}")

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> Message | None:
        if control.context == " raise":
            raise WireError("ping", "a ping", "a bad one")
        return f"PONG of {metadata['server']}" if control.kind == "ping" else None

    def greeting(self, metadata: Mapping[str, Any]) -> Message | None:
        return None

    def read_request(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Request:
        raise AssertionError("a server calls read_message")

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Message:
        raise AssertionError("a server calls write_answer")

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        return ErrorReply(f"?: {error.code}")


def session(dialect: Any = None, spec: PolicySpec = SPEC, **settings: Any) -> Session:
    made = Session(dialect or Toy(), max_pending=8, **settings)
    assert made.serve(spec, {"server": "ours"}) == []
    return made


def ask(n: int, **fields: Any) -> str:
    return json.dumps({"n": n, "x": [1, 2], **fields})


def submitted(effects: list[Effect]) -> Submit:
    (submit,) = [effect for effect in effects if isinstance(effect, Submit)]
    return submit


def sent(effects: list[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def ended(effects: list[Effect]) -> list[int]:
    return [effect.episode for effect in effects if isinstance(effect, EndEpisode)]


def chunk(first: float = 0.0, steps: int = 3) -> Answered:
    return Answered(ActionChunk(np.arange(2 * steps, dtype=np.float32).reshape(steps, 2) + first), 0.0, 0.0)


def answer(one: Session, submit: Submit, outcome: Any = None) -> list[Effect]:
    return one.answer(submit.ticket, chunk() if outcome is None else outcome, 0.0)


def test_the_toy_is_such_a_dialect_and_the_founding_ones_are_not() -> None:
    assert isinstance(Toy(), ConversingDialect)
    assert not any(isinstance(by_name(name), ConversingDialect) for name in ("openpi", "wall_x", "vibe_rl"))


def test_rows_of_a_chunk_answer_one_request_each_and_then_the_policy_is_asked_again() -> None:
    one = session()
    first = answer(one, submitted(one.receive(ask(1), 0.0)))
    assert sent(first) == ['{"n": 1, "actions": [0.0, 1.0]}']
    second = one.receive(ask(2), 0.0)
    assert [type(effect) for effect in second] == [Reuse, Send]
    assert sent([*second, *one.receive(ask(3), 0.0)]) == [
        '{"n": 2, "actions": [2.0, 3.0]}',
        '{"n": 3, "actions": [4.0, 5.0]}',
    ]
    assert submitted(one.receive(ask(4), 0.0))
    assert one.pending == 1


SIZES = [(1, [1, 2, 3, 4]), (2, [1, 3]), (3, [1, 4]), (9, [1, 4]), (None, [1, 4])]


@pytest.mark.parametrize(("chunk_size", "asked"), SIZES)
def test_chunk_size_says_how_many_rows_are_used(chunk_size: int | None, asked: list[int]) -> None:
    one, found = session(chunk_size=chunk_size), []
    for n in range(1, 5):
        effects = one.receive(ask(n), 0.0)
        if any(isinstance(effect, Submit) for effect in effects):
            found.append(n)
            answer(one, submitted(effects))
    assert found == asked


def test_a_policy_without_a_horizon_is_asked_each_time() -> None:
    one = session(spec=PolicySpec("single", {"x": ArraySpec((2,))}, ArraySpec((2,))))
    for n in range(3):
        submit = submitted(one.receive(ask(n), 0.0))
        row = Answered(ActionChunk(np.zeros(2, np.float32)), 0.0, 0.0)
        assert sent(one.answer(submit.ticket, row, 0.0)) == [f'{{"n": {n}, "actions": [0.0, 0.0]}}']


def test_of_a_policy_without_a_spec_the_axes_of_its_answer_tell() -> None:
    one = session(spec=PolicySpec("open", None, None))
    answer(one, submitted(one.receive(ask(1), 0.0)))
    assert sent(one.receive(ask(2), 0.0)) == ['{"n": 2, "actions": [2.0, 3.0]}']


def test_serve_steps_does_the_same_in_a_dialect_of_chunks_and_keeps_the_axis() -> None:
    one = Session(by_name("openpi"), max_pending=8, serve_steps=True)
    one.serve(SPEC, {})
    request = by_name("openpi").write_request({"x": np.ones(2, np.float32)})
    answers = [*answer(one, submitted(one.receive(request, 0.0))), *one.receive(request, 0.0)]
    actions = [by_name("openpi").read_reply(message).actions for message in sent(answers)]
    assert [(each.shape, each.tolist()) for each in actions] == [((1, 2), [[0, 1]]), ((1, 2), [[2, 3]])]
    assert submitted([*one.receive(request, 0.0), *one.receive(request, 0.0)])


def test_a_dialect_of_chunks_gets_them_whole() -> None:
    one = session(Toy(one_action=False))
    told = sent(answer(one, submitted(one.receive(ask(1), 0.0))))
    assert json.loads(told[0])["actions"] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("trouble", ["end", "begins", "refused", "unreadable", "unread", "served", "failed"])
def test_rows_are_dropped_when_an_episode_ends_and_when_something_fails(trouble: str) -> None:
    one = session(chunk_size=2 if trouble == "failed" else None)
    answer(one, submitted(one.receive(ask(1), 0.0)))
    if trouble == "end":
        assert ended(one.receive("END", 0.0)) == [0]
    elif trouble == "begins":
        effects = one.receive(ask(2, begins=True), 0.0)
        assert ended(effects) == [0]
        assert submitted(effects).episode == 1
        return
    elif trouble == "refused":
        assert sent(one.receive(ask(2, x=[1, 2, 3]), 0.0)) == ["2: bad_observation"]
    elif trouble == "unreadable":
        assert sent(one.receive('{"n": 2}', 0.0)) == ["2: bad_frame"]
    elif trouble == "served":
        one.serve(SPEC, {"server": "another"})
    elif trouble == "failed":
        one.receive(ask(2), 0.0)
        submit = submitted(one.receive(ask(3), 0.0))
        assert sent(answer(one, submit, PolicyFailed("no"))) == ["3: policy_failed"]
    else:
        assert sent(one.receive("garbage", 0.0)) == ["?: bad_frame"]
        assert sent(one.receive(ask(2), 0.0)) == ['{"n": 2, "actions": [2.0, 3.0]}']  # nobody's message
        return
    assert submitted(one.receive(ask(9), 0.0))


def test_an_episode_that_ends_while_it_is_asked_for_is_forgotten_with_its_last_answer() -> None:
    one = session()
    old = submitted(one.receive(ask(1), 0.0))
    assert ended(one.receive("END", 0.0)) == []
    new = submitted(one.receive(ask(2), 0.0))
    assert (old.episode, new.episode, one.episodes) == (0, 1, [0, 1])
    late = answer(one, old)
    assert ended(late) == [0]
    assert one.episodes == [1]
    assert sent(answer(one, new, chunk(10))) == ['{"n": 2, "actions": [10.0, 11.0]}']


def test_episodes_by_name_have_rows_of_their_own() -> None:
    one = session()
    for name, first in (("a", 0.0), ("b", 100.0)):
        answer(one, submitted(one.receive(ask(1, episode=name), 0.0)), chunk(first))
    rows = [json.loads(sent(one.receive(ask(2, episode=name), 0.0))[0])["actions"] for name in "ab"]
    assert rows == [[2, 3], [102, 103]]
    assert ended(one.receive("END a", 0.0)) == [0]
    assert sent(one.receive(ask(3, episode="b"), 0.0)) == ['{"n": 3, "actions": [104.0, 105.0]}']
    assert one.episodes == [1]


def test_a_peer_cannot_have_episodes_without_end() -> None:
    many = Session(Toy(one_action=False), max_pending=1000)
    many.serve(SPEC, {})
    last = [many.receive(ask(n, episode=str(n)), 0.0) for n in range(257)][-1]
    assert not any(isinstance(effect, Submit) for effect in last)
    assert len(many.episodes) == 256
    assert not any(isinstance(effect, Submit) for effect in many.receive(ask(1, episode="n" * 300), 0.0))


def test_an_episode_that_asked_nothing_for_long_gives_way_to_a_new_one() -> None:
    """Many clients name each episode anew and never say that one is over."""
    many = Session(Toy(one_action=False), max_pending=1000)
    many.serve(SPEC, {})
    given_up: list[int] = []
    for n in range(10_000):
        effects = many.receive(ask(n, episode=str(n)), float(n))
        given_up += ended(effects)
        answer(many, submitted(effects))
        assert len(many.episodes) <= 256
    assert given_up == list(range(10_000 - 256))


def test_episodes_that_are_in_use_do_not_give_way() -> None:
    many = Session(Toy(one_action=False), max_pending=1000)
    many.serve(SPEC, {})
    waiting = submitted(many.receive(ask(0, episode="0"), 0.0))
    for n in range(1, 256):
        answer(many, submitted(many.receive(ask(n, episode=str(n)), 100.0)))
    assert sent(many.receive(ask(1, episode="new"), 159.0)) == []  # a refusal, behind the answer that is awaited
    assert ended(many.receive(ask(1, episode="newer"), 161.0)) == [1]
    assert sent(answer(many, waiting))[256] == "1: overloaded"


def test_controls_are_answered_in_their_turn_by_what_the_server_says_of_itself() -> None:
    one = session()
    submit = submitted(one.receive(ask(1), 0.0))
    assert one.receive("PING", 0.0) == []
    assert sent(answer(one, submit)) == ['{"n": 1, "actions": [0.0, 1.0]}', "PONG of ours"]
    assert sent(one.receive("PING raise", 0.0)) == [" raise: bad_frame"]
    assert one.pending == 0


def test_controls_before_the_policy_is_ready_wait_for_it() -> None:
    one = Session(Toy(), max_pending=8)
    assert one.receive("PING", 0.0) == []
    assert sent(one.serve(SPEC, {"server": "ours"})) == ["PONG of ours"]


def test_a_message_may_end_the_connection_once_all_before_it_is_answered() -> None:
    one = session()
    submit = submitted(one.receive(ask(1), 0.0))
    assert one.receive("BYE", 0.0) == []
    assert one.receive(ask(2), 0.0) == []  # nothing behind it is read
    assert [type(effect) for effect in answer(one, submit)] == [Send, Close]
    assert one.closed


def test_overloaded_requests_of_such_a_dialect_are_refused_without_a_number() -> None:
    one = Session(Toy(), max_pending=1)
    one.serve(SPEC, {})
    submit = submitted(one.receive(ask(1), 0.0))
    assert one.receive(ask(2), 0.0) == []
    assert sent(answer(one, submit))[1:] == ["?: overloaded"]


def test_fit_makes_an_observation_the_specs_before_it_is_checked() -> None:
    one = Session(by_name("openpi"), max_pending=8, fit=KeyMap({"state": "x"}).fit)
    one.serve(SPEC, {})
    write = by_name("openpi").write_request
    told: list[Any] = []
    for value in range(8):  # learned by then
        message = memoryview(bytearray(write({"state": np.full(2, value, np.float32)})))
        effects = one.receive(message, 0.0)
        submit = submitted(effects)
        assert submit.observation["x"].tolist() == [value, value]
        told += [effect.moves for effect in effects if isinstance(effect, Mapped)]
        answer(one, submit)
    assert told == [("state as x",)]
    assert "bad_observation" in sent(one.receive(write({"state": np.zeros(3, np.float32)}), 0.0))[0]
