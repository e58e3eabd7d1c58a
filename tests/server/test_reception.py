"""Who is let in, who waits, and who is told what, with peers that have no socket."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import NotReady
from policyserve.core.messages import Message
from policyserve.core.observer import Observer, Observers, SessionFacts
from policyserve.dialects import by_name
from policyserve.observe.counters import Counters
from policyserve.server.admission import Admission
from policyserve.server.catalogue import Catalogue
from policyserve.server.config import ServerConfig
from policyserve.server.conversation import Conversation
from policyserve.server.handshake import Credentials
from policyserve.server.reception import Reception
from policyserve.server.routes import Response
from policyserve.server.served import Served
from tests.engine.awkward import SecretMap
from tests.server.test_conversation import SPEC, VIBE_RL, HandEngine

NOBODY = Credentials()


class Peer:
    """A connection without a socket."""

    def __init__(self, number: int, address: str = "10.0.0.7") -> None:
        self.number, self.address, self.peer = number, address, f"{address}:{5000 + number}"
        self.messages: list[Message] = []
        self.closes: list[int] = []
        self.patience_s: list[float | None] = []
        self.is_cut = self.has_given_up = False
        self.held = 0
        self.receiving_s = 0.0

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def close(self, code: int, reason: str) -> None:
        self.closes.append(code)

    def abort(self) -> None:
        self.is_cut = True

    def expect_first_message(self, patience_s: float | None) -> None:
        self.patience_s.append(patience_s)

    def held_bytes(self) -> int:
        return self.held

    def give_up(self) -> None:
        self.has_given_up = True


class Comings(Observer):
    """Keeps who came and went."""

    def __init__(self) -> None:
        self.opened: list[SessionFacts] = []
        self.closed: list[int] = []

    def on_session_opened(self, session: SessionFacts) -> None:
        self.opened.append(session)

    def on_session_closed(self, session: int) -> None:
        self.closed.append(session)


class Bench:
    def __init__(self, **settings: Any) -> None:
        config = ServerConfig(**settings)
        self.engine, self.comings = HandEngine(), Comings()
        observers = Observers(lambda _observer, error: pytest.fail(str(error)))
        observers.add(self.comings)
        self.served = Served(None, self.engine, observers, config)
        self.reception = Reception(config, Catalogue([self.served]), observers, Counters(), Admission(config))

    def enter(self, peer: Peer, path: str = "/openpi") -> Conversation:
        self.reception.enter(peer)
        opened = self.reception.open_session(peer, path, NOBODY)
        assert isinstance(opened, Conversation)
        self.reception.start_session(peer)
        return opened


def test_a_peer_that_comes_before_the_policy_is_greeted_when_that_is_ready() -> None:
    bench, peer = Bench(), Peer(1)
    bench.enter(peer)
    assert peer.messages == []
    bench.served.say_ready(SPEC)
    (greeting,) = peer.messages
    assert by_name("openpi").read_greeting(greeting)["spec"] == SPEC.describe()
    assert peer.patience_s == [None]  # the server has spoken


def test_a_peer_that_speaks_first_is_waited_for() -> None:
    bench, peer = Bench(first_frame_timeout_s=7.0), Peer(1)
    bench.served.say_ready(SPEC)
    bench.enter(peer, "/vibe_rl")
    assert (peer.messages, peer.patience_s) == ([], [7.0])


def test_who_waits_for_a_policy_that_will_never_be_there_is_told_and_so_is_who_comes_later() -> None:
    bench, early, late = Bench(), Peer(1), Peer(2)
    bench.enter(early)
    bench.served.say_failed(NotReady("not served: no such file"))
    bench.enter(late)
    assert (early.closes, late.closes) == ([1011], [1011])
    assert bench.reception.stage == "loading failed"


def test_a_session_that_ends_leaves_its_place_its_requests_and_its_memory() -> None:
    bench, peer = Bench(max_sessions_per_address=1), Peer(1)
    conversation = bench.enter(peer)
    bench.served.say_ready(SPEC)
    message = VIBE_RL.write_request({"obs": np.zeros(2, np.float32)})
    assert isinstance(message, bytes)
    refused = bench.reception.open_session(Peer(2), "/", NOBODY)
    assert isinstance(refused, Response)
    assert refused.status == 503
    assert bench.reception.conversations == [conversation]
    bench.reception.leave(peer)
    bench.reception.leave(peer)  # twice is once
    assert bench.engine.forgotten == [1]
    assert bench.comings.opened == [SessionFacts(1, "10.0.0.7:5001", "openpi", "")]
    assert bench.comings.closed == [1]
    assert bench.reception.everybody_left.is_set()
    bench.enter(Peer(2))


def test_who_has_a_session_is_told_with_the_dialect_that_is_known_by_now() -> None:
    bench, known, unknown = Bench(), Peer(1), Peer(2)
    bench.served.say_ready(SPEC)
    bench.enter(known)
    conversation = bench.enter(unknown, "/")
    assert [facts.dialect for facts in bench.reception.sessions] == ["openpi", "auto"]
    message = VIBE_RL.write_request({"obs": np.zeros(2, np.float32)})
    assert isinstance(message, bytes)
    conversation.receive(memoryview(message), 0.5)
    assert [facts.dialect for facts in bench.reception.sessions] == ["openpi", "vibe_rl"]
    bench.reception.leave(known)
    assert [facts.number for facts in bench.reception.sessions] == [2]


def test_sessions_are_numbered_as_they_open_whoever_else_connects() -> None:
    bench, peers = Bench(), [Peer(number) for number in (-1, -2, -3)]
    first, probe, second = peers
    for peer in peers:
        bench.reception.enter(peer)
    for peer in (second, first):
        bench.reception.open_session(peer, "/openpi", NOBODY)
    assert (second.number, first.number, probe.number) == (1, 2, -2)
    assert bench.reception.waiting == 1
    for peer in peers:
        bench.reception.leave(peer)
    assert bench.comings.closed == [2, 1]
    assert bench.reception.waiting == 0


def test_the_oldest_of_too_many_that_have_no_session_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    bench, peers = Bench(max_handshakes=2), [Peer(number) for number in range(3)]
    with caplog.at_level(logging.WARNING):
        for peer in peers:
            bench.reception.enter(peer)
    assert [peer.is_cut for peer in peers] == [True, False, False]
    assert bench.reception.waiting == 2
    assert "cut peer=10.0.0.7:5000: 2 connections are no session" in caplog.text


def test_a_closed_reception_lets_nobody_in() -> None:
    bench, peer = Bench(), Peer(1)
    bench.reception.close()
    bench.reception.enter(peer)
    assert peer.is_cut
    refused = bench.reception.open_session(peer, "/", NOBODY)
    assert isinstance(refused, Response)
    assert refused.status == 503


def test_whoever_makes_the_server_hold_most_gives_up() -> None:
    bench, hog, robot = Bench(max_buffered_mib=1, max_frame_mib=1), Peer(1), Peer(2, "10.0.0.8")
    for peer in (hog, robot):
        bench.enter(peer)
    hog.held, robot.held = 2 << 20, 1000
    bench.reception.grow((2 << 20) + 1000)
    assert (hog.has_given_up, robot.has_given_up) == (True, False)


def test_a_policys_metadata_is_read_once_for_all_greetings() -> None:
    bench = Bench()
    bench.served.say_ready(replace(SPEC, metadata=SecretMap("an exit", reads=1)))
    for peer in (Peer(1), Peer(2)):
        bench.enter(peer)
        (greeting,) = peer.messages
        assert by_name("openpi").read_greeting(greeting)["robot"] == "arm"
