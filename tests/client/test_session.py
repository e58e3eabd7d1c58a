"""The client's half of a conversation, without a socket."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.client.session import ClientSession
from policyserve.core.errors import BadAction, RemoteError, WireError, WrongDialect
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects import by_name

every_dialect = pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl", "vla_eval"])
NOT_FINITE = [np.nan, np.inf, -np.inf]


def open_session(dialect: str, **options: Any) -> ClientSession:
    return ClientSession(by_name(dialect), "ws://robot:8000/path", **options)


def answer(dialect: str, actions: Any) -> Any:
    """A server's frame with these actions."""
    return by_name(dialect).write_reply(ActionChunk(np.asarray(actions)), Timing(0, 0, 1))


def packed(message: Any) -> bytes:
    made = msgpack.packb(message)
    assert isinstance(made, bytes)
    return made


def greeted_by(dialect: str, metadata: dict[str, Any], **options: Any) -> ClientSession:
    session = open_session(dialect, **options)
    session.on_greeting(packed(metadata))
    return session


@every_dialect
@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_actions_that_are_not_finite_are_refused_with_their_place(dialect: str, bad: float, dtype: str) -> None:
    actions = np.zeros((4, 7), dtype)
    actions[2, 5] = bad
    session = open_session(dialect)
    with pytest.raises(
        BadAction, match=rf"actions: expected finite numbers, got {bad} at \[2, 5\].*check_actions=False"
    ):
        session.reply(answer(dialect, actions))
    np.testing.assert_array_equal(session.reply(answer(dialect, np.ones(3))).actions, 1)


@every_dialect
@pytest.mark.parametrize("bad", NOT_FINITE)
def test_they_pass_where_nobody_wants_a_check(dialect: str, bad: float) -> None:
    session = open_session(dialect, check_actions=False)
    np.testing.assert_array_equal(session.reply(answer(dialect, [1.0, bad])).actions, [1.0, bad])


@pytest.mark.parametrize("dialect", ["openpi", "wall_x"])
def test_a_policyserve_servers_actions_were_checked_there(dialect: str) -> None:
    assert np.isnan(greeted_by(dialect, {"policyserve": "1"}).reply(answer(dialect, np.nan)).actions)
    with pytest.raises(BadAction):
        greeted_by(dialect, {"robot": "arm"}).reply(answer(dialect, np.nan))


@every_dialect
@pytest.mark.parametrize("actions", [np.zeros((0, 7), np.float32), np.arange(3), np.array(True)])
def test_whole_numbers_and_none_at_all_are_finite(dialect: str, actions: Any) -> None:
    assert open_session(dialect).reply(answer(dialect, actions)).actions.shape == actions.shape


@pytest.mark.parametrize("sent", [[1.0, 2.0], [[1, 2], [3, 4]], 5.5, 3])
def test_actions_that_a_server_sends_as_lists_are_an_array(sent: Any) -> None:
    reply = open_session("openpi").reply(packed({"actions": sent}))
    assert isinstance(reply.actions, np.ndarray)
    assert reply.actions.tolist() == sent
    assert reply["actions"] == sent, "the mapping has what the wire carried"


@pytest.mark.parametrize(
    ("sent", "got"), [("left", "a str"), ([[1], [1, 2]], "a list"), ({"x": 1}, "a dict"), (["a"], "a list")]
)
def test_actions_that_are_no_numbers_are_refused(sent: Any, got: str) -> None:
    with pytest.raises(WireError, match=f"actions: expected an array of numbers, got {got}"):
        open_session("openpi").reply(packed({"actions": sent}))


@pytest.mark.parametrize("metadata", [{}, {"robot": "arm"}])
def test_a_greeting_in_place_of_the_first_answer_tells_who_greets(metadata: dict[str, Any]) -> None:
    with pytest.raises(WrongDialect, match=r"ws://robot:8000/path.* reads as a greeting; .*dialect='openpi'"):
        open_session("vibe_rl").reply(packed(metadata))


def test_a_later_message_is_no_greeting() -> None:
    session = open_session("vibe_rl")
    session.reply(answer("vibe_rl", [1.0]))
    with pytest.raises(WireError) as caught:
        session.reply(packed({}))
    assert not isinstance(caught.value, WrongDialect)


def test_bytes_that_nobody_greets_with_are_no_greeting() -> None:
    with pytest.raises(WireError) as caught:
        open_session("vibe_rl").reply(b"\xc1")
    assert not isinstance(caught.value, WrongDialect)


def test_an_echo_of_the_request_is_no_greeting() -> None:
    echo = by_name("vibe_rl").write_request({"obs": np.zeros(3)})
    with pytest.raises(WireError, match="action: expected an action, got keys obs") as caught:
        open_session("vibe_rl").reply(echo)
    assert not isinstance(caught.value, WrongDialect)


def test_it_doubts_that_the_policy_is_loaded_until_the_server_has_said_something() -> None:
    session = open_session("vibe_rl")
    assert "may still be loading" in session.doubt
    session.reply(answer("vibe_rl", [1.0]))
    assert session.doubt == ""
    assert open_session("openpi").doubt == "", "its greeting says that the policy is there"


def test_after_an_error_the_server_may_close() -> None:
    session = open_session("openpi")
    with pytest.raises(RemoteError, match="the arm fell off"):
        session.reply("the arm fell off")
    assert session.may_close
