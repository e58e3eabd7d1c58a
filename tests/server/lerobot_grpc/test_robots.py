"""Clients that vanish, come back, or fill the table: what gRPC does not tell of its connections."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import NotReady
from policyserve.core.policy import ActionChunk, FunctionPolicy
from policyserve.engine.engine import Change
from policyserve.server.lerobot_grpc.robot import Robot
from policyserve.server.lerobot_grpc.robots import Robots
from policyserve.server.lerobot_grpc.status import Refused
from tests.dialects.lerobot.written import features, setup
from tests.policies.frameworks import import_or_skip
from tests.server.lerobot_grpc.calling import (
    STATE,
    Caller,
    SlowPolicy,
    asking,
    calling,
    doubled,
    lerobot_port,
    policy,
    refused,
    rows,
)
from tests.server.live import DEADLINE_S, Live, none_open, serving

import_or_skip("grpc")


def waiting(live: Live, caller: Caller) -> Any:
    """A call for actions that has reached the server."""
    call = caller.acting.future(b"", timeout=DEADLINE_S)
    live.until(lambda server: any(getattr(peer, "calls", 0) for peer in server.reception.peers))
    return call


def test_a_client_that_dies_while_it_waits_leaves_no_session_and_disturbs_nobody() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as other:
        with asking(live, "double rows") as caller:
            call = waiting(live, caller)
        assert call.done()
        live.until(lambda server: server.counters.sessions_open == 1)
        other.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(other.actions()[0], rows(1.0, 2.0, 3.0))


def test_a_client_that_calls_no_more_is_forgotten_in_time() -> None:
    with serving(policy(), lerobot=0, ping_timeout_s=0.2) as live, asking(live, "double rows"):
        none_open(live)


def test_a_session_that_asks_nothing_ends_and_the_next_observation_begins_another() -> None:
    with serving(policy(), lerobot=0, idle_timeout_s=0.2) as live, asking(live, "double rows") as caller:
        none_open(live)
        caller.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(1.0, 2.0, 3.0))
        assert live.server.counters.sessions_opened == 2


@pytest.mark.parametrize("is_closed", [True, False])
def test_an_observation_that_went_with_its_session_is_told_of_and_the_next_is_answered(is_closed: bool) -> None:
    """A robot that sends one observation and waits would wait for ever."""
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        caller.observe(1.0, 2.0, 3.0)
        (robot,) = live.server.reception.peers
        assert isinstance(robot, Robot)
        live.call((lambda: robot.close(1013, "no room")) if is_closed else robot.end_session)
        told = refused(lambda: caller.acting(b"", timeout=DEADLINE_S))
        assert told == ("UNAVAILABLE", "the session has ended meanwhile")
        caller.observe(2.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(2.0, 2.0, 3.0))


def test_a_session_whose_policy_takes_long_is_not_idle() -> None:
    slow = SlowPolicy()
    with serving(slow, lerobot=0, idle_timeout_s=0.1, isolate="thread") as live, calling(live) as caller:
        caller.ready()
        caller.instruct(setup("double rows"))
        caller.observe(1.0, 2.0, 3.0)
        call = caller.acting.future(b"", timeout=DEADLINE_S)
        assert slow.began.acquire(timeout=DEADLINE_S)
        idle = threading.Event()
        live.call(lambda: asyncio.get_running_loop().call_later(0.3, idle.set))
        assert idle.wait(DEADLINE_S)
        assert live.server.counters.sessions_open == 1
        slow.go_on.release()
        assert call.result()


def test_a_call_that_is_cancelled_takes_no_answer_away() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        call = waiting(live, caller)
        call.cancel()
        live.until(lambda server: not any(getattr(peer, "calls", 0) for peer in server.reception.peers))
        caller.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(1.0, 2.0, 3.0))


def test_a_client_that_connects_again_goes_on_as_what_it_said_it_is() -> None:
    told = features(("b", "a", "c"))
    with serving(policy(), lerobot=0) as live:
        with asking(live, "double rows", told) as caller:
            call = waiting(live, caller)
        assert call.done()
        live.until(lambda server: not any(getattr(peer, "calls", 0) for peer in server.reception.peers))
        with calling(live) as again:
            again.observe(a=1.0, b=2.0, c=3.0)
            np.testing.assert_array_equal(again.actions()[0], rows(2.0, 1.0, 3.0))


def test_of_two_lost_clients_that_differ_none_is_guessed() -> None:
    with serving(policy(), lerobot=0) as live:
        with ExitStack() as stack:
            told = [features(("a", "b", "c")), features(("b", "a", "c"))]
            calls = [waiting(live, stack.enter_context(asking(live, "double rows", one))) for one in told]
            live.until(lambda server: sum(getattr(peer, "calls", 0) for peer in server.reception.peers) == 2)
        assert all(call.cancelled() or call.code() for call in calls)
        live.until(lambda server: not any(getattr(peer, "calls", 0) for peer in server.reception.peers))
        with calling(live) as again:
            status, told = refused(lambda: again.observe(a=1.0, b=2.0, c=3.0))
            assert (status, "start the client again" in told) == ("FAILED_PRECONDITION", True)
            assert refused(again.raw_actions)[0] == "FAILED_PRECONDITION"


def test_a_policy_that_is_loaded_anew_answers_the_next_observation() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        caller.observe(1.0, 2.0, 3.0)
        caller.actions()
        gone = NotReady("the policy was loaded anew: connect again")
        live.call(lambda: live.server.catalogue.default.say_changed(Change(STATE, closing=gone)))
        none_open(live)
        caller.observe(2.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(2.0, 2.0, 3.0))


def test_what_a_policy_remembers_goes_with_ready() -> None:
    class Counting:
        spec = STATE

        def infer(self, batch: Any) -> Any:
            return [ActionChunk(rows(one.state or 0.0, 0.0, 0.0), (one.state or 0.0) + 1.0) for one in batch]

        def close(self) -> None:
            pass

    def first(caller: Caller) -> float:
        caller.observe(0.0, 0.0, 0.0)
        return float(caller.actions()[0][0, 0])

    with serving(Counting(), lerobot=0, isolate="thread") as live, asking(live, "double rows") as caller:
        assert [first(caller) for _ in range(3)] == [0.0, 2.0, 4.0]
        caller.ready()
        caller.instruct(setup("double rows"))
        assert first(caller) == 0.0


def test_so_many_clients_are_known_and_no_more() -> None:
    async def enter() -> None:
        with serving(policy(), lerobot=0, max_handshakes=3) as live:
            robots = Robots(live.server.reception, live.server.config)
            with ExitStack() as stack:
                for number in range(3):
                    robot = stack.enter_context(robots.calling(f"ipv4:10.0.0.{number}:1"))
                    assert (robot.address, robot.peer) == (f"10.0.0.{number}", f"10.0.0.{number}:1")
                with pytest.raises(Refused, match="3 clients are connected"), robots.calling("ipv4:10.0.0.9:1"):
                    pass
            with robots.calling("ipv6:%5B::1%5D:9") as robot:
                assert (robot.address, robot.peer) == ("::1", "[::1]:9")
            with robots.calling("unix:/tmp/x") as robot:
                assert (robot.address, robot.peer) == ("", "local")
            robots.end_all()

    asyncio.run(enter())


def test_a_crowd_that_comes_and_goes_leaves_the_server_as_it_was() -> None:
    with serving(FunctionPolicy(doubled, STATE), lerobot=0) as live, asking(live, "double rows") as other:
        for _ in range(10):
            with ExitStack() as stack:
                crowd = [stack.enter_context(asking(live, "double rows")) for _ in range(3)]
                crowd[0].observe(1.0, 2.0, 3.0)
                crowd[1].acting.future(b"").cancel()
                crowd[2].acting.future(b"")
            other.observe(1.0, 2.0, 3.0)
            np.testing.assert_array_equal(other.actions()[0], rows(1.0, 2.0, 3.0))


def test_a_client_has_so_many_calls_at_a_time_and_no_more() -> None:
    with serving(policy(), lerobot=0) as live, calling(live) as caller, asking(live, "double rows") as other:
        calls = [caller.acting.future(b"", timeout=DEADLINE_S) for _ in range(20)]
        assert {call.code().name for call in calls} == {"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"}
        other.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(other.actions()[0], rows(1.0, 2.0, 3.0))


GARBAGE = (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(4096), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"")


@pytest.mark.parametrize("sent", GARBAGE, ids=["http", "zeros", "preface", "silence"])
def test_what_is_no_grpc_disturbs_nobody(sent: bytes) -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller, ExitStack() as stack:
        for _ in range(20):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", lerobot_port(live))))
            peer.sendall(sent + b"\xff" * 100 if sent else b"")
        caller.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(1.0, 2.0, 3.0))
