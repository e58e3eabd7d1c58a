"""A policy that asks another server: sessions apart, all at once, closed with their sessions, errors as they were."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from policyserve.core.errors import (
    BadAction,
    BadObservation,
    DeadlineExceeded,
    NotReady,
    Overloaded,
    PolicyFailed,
    PolicyLost,
    PolicyserveError,
    RemoteError,
)
from policyserve.core.policy import PolicyInput
from policyserve.engine.answering import Answering
from policyserve.policies.fakes import NanPolicy, SlowPolicy
from policyserve.policies.remote.policy import RemotePolicy
from tests.plain_servers import plain_server
from tests.policies.remote.upstream import Meeting, Raising, Summing, openpi_original, outcomes, packed, remote_policy
from tests.server.live import Live, none_open, serving

DIALECTS = ("openpi", "wall_x", "vibe_rl")
ONE, TWO = np.array([1, 0], np.float32), np.array([0, 2], np.float32)


@contextmanager
def asking(url: str, **options: Any) -> Iterator[tuple[RemotePolicy, Answering]]:
    policy = remote_policy(url, **options)
    try:
        yield policy, Answering(policy)
    finally:
        policy.close()


def sessions_open(live: Live, count: int) -> None:
    live.until(lambda server: server.counters.sessions_open == count)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_interleaved_sessions_are_each_as_alone(dialect: str) -> None:
    with serving(Summing()) as live, asking(live.url(f"/{dialect}")) as (_, answering):
        for step in (1, 2, 3):
            first, second = outcomes(answering, a={"obs": ONE}, b={"obs": TWO})
            assert first.tolist() == [(step * ONE).tolist()] * 3
            assert second.tolist() == [(step * TWO).tolist()] * 3
        assert live.call(lambda: live.server.counters.sessions_open) == 2


@pytest.mark.parametrize("dialect", ["openpi", "wall_x"])
def test_a_greeting_tells_the_spec_and_the_answer_brings_what_else_it_has(dialect: str) -> None:
    with serving(Summing()) as live, asking(live.url(f"/{dialect}")) as (policy, _):
        assert policy.spec.observation == Summing.spec.observation
        assert (policy.spec.action, policy.spec.horizon, policy.spec.max_batch) == (Summing.spec.action, 3, 8)
        (chunk,) = policy.infer([PolicyInput({"obs": ONE})])
        assert not isinstance(chunk, PolicyserveError)
        assert chunk.extras == {"note": "summed"}


def test_a_server_that_is_none_of_ours_is_asked_with_whatever_comes() -> None:
    with plain_server(openpi_original) as port, asking(f"ws://127.0.0.1:{port}") as (policy, answering):
        assert policy.spec.observation is None
        assert policy.spec.metadata == {"robot": "arm"}
        assert outcomes(answering, a={"state": np.arange(3.0)})[0].tolist() == [0, 2, 4]


def test_an_array_alone_is_sent_as_obs() -> None:
    with serving(Summing()) as live, asking(live.url("/vibe_rl")) as (_, answering):
        assert outcomes(answering, a=ONE)[0].tolist() == [ONE.tolist()] * 3


def test_sessions_that_ask_together_are_asked_together() -> None:
    with plain_server(Meeting(3)) as port, asking(f"ws://127.0.0.1:{port}") as (_, answering):
        for _ in range(2):
            assert [one.tolist() for one in outcomes(answering, a={}, b={}, c={})] == [[[1.0]]] * 3


def test_a_session_that_goes_leaves_no_connection_and_comes_back_as_a_new_one() -> None:
    with serving(Summing()) as live, asking(live.url("/openpi")) as (_, answering):
        outcomes(answering, a={"obs": ONE}, b={"obs": TWO})
        sessions_open(live, 2)
        answering.forget("a")
        sessions_open(live, 1)
        assert [one[0].tolist() for one in outcomes(answering, a={"obs": ONE}, b={"obs": TWO})] == [[1, 0], [0, 4]]
        for session in "ab":
            answering.forget(session)
        sessions_open(live, 0)


def test_a_connection_answers_pings_while_its_session_asks_nothing() -> None:
    ponged: list[bool] = []

    def pinging(peer: ServerConnection) -> None:
        peer.send(packed({}))
        for _ in peer:
            peer.send(packed({"actions": [0.0]}))
            ponged.append(peer.ping().wait(60))

    with plain_server(pinging) as port, asking(f"ws://127.0.0.1:{port}") as (_, answering):
        outcomes(answering, a={})
        wait_until(lambda: bool(ponged))
        assert ponged == [True]


def test_a_policy_that_is_closed_leaves_no_connection() -> None:
    with serving(Summing()) as live:
        with asking(live.url("/openpi")) as (_, answering):
            outcomes(answering, a={"obs": ONE})
        none_open(live)


def test_a_first_request_that_fails_leaves_no_connection_though_its_error_is_kept() -> None:
    with serving(Raising(Overloaded("full"))) as live, asking(live.url("/openpi")) as (_, answering):
        (told,) = outcomes(answering, a={"obs": ONE})
        sessions_open(live, 0)
        assert told.code == "overloaded"


def test_one_session_too_many_is_overloaded_and_served_when_another_has_gone() -> None:
    with serving(Summing()) as live, asking(live.url("/openpi"), max_sessions=1) as (_, answering):
        outcomes(answering, a={"obs": ONE})
        (refused,) = outcomes(answering, b={"obs": ONE})
        assert isinstance(refused, Overloaded)
        assert "1 sessions have a connection" in str(refused)
        assert "--remote-sessions" in str(refused)
        answering.forget("a")
        assert outcomes(answering, b={"obs": ONE})[0][0].tolist() == [1, 0]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "error",
    [
        BadObservation("obs", "float32 (2,)", "float32 (3,)", "look"),
        Overloaded("full", 40),
        DeadlineExceeded("late"),
        PolicyLost("gone"),
        PolicyFailed("broken"),
        BadAction("NaN"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_keeps_its_code_its_blame_and_whether_to_ask_again(error: PolicyserveError, dialect: str) -> None:
    with serving(Raising(error)) as live, asking(live.url(f"/{dialect}")) as (_, answering):
        (told,) = outcomes(answering, a={"obs": ONE})
        assert (told.code, told.blame, told.retryable) == (error.code, error.blame, error.retryable)
        assert str(told).partition(" (close code")[0] == str(error)


def test_one_bad_row_harms_no_other_of_its_batch() -> None:
    with plain_server(openpi_original) as port, asking(f"ws://127.0.0.1:{port}") as (_, answering):
        bad, good = outcomes(answering, a={"statte": ONE}, b={"state": ONE})
        assert isinstance(bad, RemoteError)
        assert (bad.code, bad.retryable) == ("remote", False)
        assert "KeyError: 'state'" in str(bad)
        assert good.tolist() == [2, 0]


def test_what_the_remotes_dialect_cannot_carry_is_the_robots_fault() -> None:
    with serving(Summing()) as live, asking(live.url("/vibe_rl")) as (_, answering):
        (told,) = outcomes(answering, a={"obs": ONE, "prompt": "pick up"})
        assert isinstance(told, BadObservation)
        assert told.path == "prompt"


def test_actions_that_are_not_finite_do_not_pass() -> None:
    with plain_server(nan_server) as port, asking(f"ws://127.0.0.1:{port}") as (_, answering):
        (told,) = outcomes(answering, a={})
        assert isinstance(told, BadAction)
    with serving(NanPolicy()) as live, asking(live.url("/openpi")) as (_, answering):
        (told,) = outcomes(answering, a={"obs": np.zeros(4, np.float32)})
        assert told.code == "bad_action"


def test_a_server_that_goes_is_told_as_what_passes_and_found_when_it_is_back() -> None:
    with serving(Summing()) as live:
        port = live.port
        policy = remote_policy(live.url("/openpi"), timeout_s=2.0)
        answering = Answering(policy)
        outcomes(answering, a={"obs": ONE})
    for session, kind in (("a", PolicyLost), ("b", NotReady)):
        (told,) = outcomes(answering, **{session: {"obs": ONE}})
        assert isinstance(told, kind), told
        assert told.retryable
        assert "cannot connect to ws://127.0.0.1" in str(told)
    with serving(Summing(), port=port):
        assert outcomes(answering, b={"obs": ONE})[0][0].tolist() == [1, 0]
        policy.close()


def test_a_server_that_is_slow_is_told_as_late() -> None:
    slow = SlowPolicy()
    with serving(slow) as live, asking(live.url("/openpi"), timeout_s=0.3) as (_, answering):
        (told,) = outcomes(answering, a={"obs": np.zeros(4, np.float32)})
        slow.release.set()
        assert isinstance(told, DeadlineExceeded)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def nan_server(peer: ServerConnection) -> None:
    peer.send(packed({}))
    for _ in peer:
        peer.send(packed({"actions": [float("nan")]}))
