"""One answer for each message, whatever becomes of the session; with a peer that has no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserve import ArraySpec, PolicySpec
from policyserve.core.errors import NotReady
from policyserve.core.observer import Observers
from policyserve.observe.counters import Counters
from policyserve.server.admission import Admission
from policyserve.server.catalogue import Catalogue
from policyserve.server.config import ServerConfig
from policyserve.server.gr00t.peer import Gr00tPeer
from policyserve.server.reception import Reception
from policyserve.server.served import Served
from tests.server.gr00t.asking import asking, echoed, error_in, packed, unpacked
from tests.server.test_conversation import HandEngine

SPEC = PolicySpec("echo", {"state": {"x": ArraySpec((1,))}}, ArraySpec((1,)), horizon=2)
PING = packed({"endpoint": "ping"})


class Home:
    """A reception and one peer of it. is_cut: its connection was ended."""

    def __init__(self, spec: PolicySpec | None = SPEC, **settings: Any) -> None:
        config = ServerConfig(**settings)
        self.engine = HandEngine()
        observers = Observers(lambda observer, error: None)
        self.served = Served(None, self.engine, observers, config)
        self.reception = Reception(config, Catalogue([self.served]), observers, Counters(), Admission(config))
        self.written: list[Sequence[bytes]] = []
        self.is_cut = False
        self.peer = Gr00tPeer(-1, "10.0.0.7", "10.0.0.7:5000", self.reception, config, self.written.append, self.cut)
        self.reception.enter(self.peer)
        if spec is not None:
            self.served.say_ready(spec)

    def cut(self) -> None:
        self.is_cut = True

    def take(self, *messages: bytes) -> None:
        for message in messages:
            self.peer.take([b"id", b""], memoryview(message), 0.0)

    def answer(self, x: float) -> None:
        """Answer the oldest request that the engine has."""
        self.engine.answer(np.full((2, 1), x, np.float32))

    @property
    def answers(self) -> list[bytes]:
        assert all(frames[:2] == [b"id", b""] and len(frames) == 3 for frames in self.written)
        return [frames[2] for frames in self.written]


def test_a_session_begins_with_the_first_message_and_is_seen_at_once() -> None:
    home = Home()
    assert home.reception.waiting == 1
    home.take(PING)
    assert home.peer.has_session
    assert home.reception.waiting == 0
    assert home.reception.sessions[0].dialect == "gr00t"
    assert unpacked(home.answers[0]) == {"status": "ok", "message": "Server is running"}


def test_answers_come_in_the_order_of_their_messages() -> None:
    home = Home()
    home.take(asking(1.0), PING, asking(2.0))
    assert home.answers == []
    assert home.peer.pending == 3
    home.answer(5.0)
    assert [echoed(home.answers[0]), unpacked(home.answers[1])["status"]] == [5.0, "ok"]
    home.answer(6.0)
    assert echoed(home.answers[2]) == 6.0
    assert home.peer.pending == 0


def test_who_waits_for_an_answer_when_the_session_ends_is_told_why_each_of_them() -> None:
    home = Home()
    home.take(asking(1.0), asking(2.0), PING)
    (conversation,) = home.reception.conversations
    conversation.leave(1001, "the server is stopping")
    assert [error_in(answer) for answer in home.answers] == ["not_ready: the server is stopping"] * 3
    assert set(home.engine.forgotten) == {1}
    assert home.reception.conversations == []
    home.take(PING)
    assert len(home.answers) == 4
    assert home.reception.sessions[0].number == 2


def test_a_message_that_comes_while_the_session_drains_is_answered_at_its_end() -> None:
    home = Home()
    home.take(asking(1.0))
    (conversation,) = home.reception.conversations
    conversation.drain(NotReady("the policy was loaded anew: connect again"))
    home.take(asking(2.0))
    assert home.answers == []
    home.answer(5.0)
    assert echoed(home.answers[0]) == 5.0
    assert error_in(home.answers[1]) == "not_ready: the policy was loaded anew: connect again"


def test_who_asks_before_the_policy_is_there_waits_for_it() -> None:
    home = Home(spec=None)
    home.take(PING, asking(1.0))
    assert home.answers == []
    home.served.say_ready(SPEC)
    home.answer(3.0)
    assert echoed(home.answers[1]) == 3.0


def test_who_waits_for_a_policy_that_never_comes_is_told_and_so_is_who_comes_later() -> None:
    home = Home(spec=None)
    home.take(PING, asking(1.0))
    home.served.say_failed(NotReady("not served: no such file"))
    home.take(PING)
    assert len(home.answers) == 3
    assert all("no such file" in error_in(answer) for answer in (home.answers[0], home.answers[2]))
    assert error_in(home.answers[1])


def test_a_stopping_server_refuses_who_has_no_session() -> None:
    home = Home()
    home.reception.close()
    home.take(PING)
    assert error_in(home.answers[0]) == "unavailable: the server is stopping"
    assert not home.peer.has_session


def test_a_client_that_asks_without_end_is_cut() -> None:
    home = Home(max_pending=2)
    home.take(*[asking(1.0)] * 4)
    assert not home.is_cut
    home.take(asking(1.0))
    assert home.is_cut


def test_a_client_that_sends_what_asks_for_nothing_waits_for_its_answers() -> None:
    async def run() -> None:
        home = Home()
        for _ in range(110):
            home.take(b"\xc1")
        told = len(home.answers)
        assert 100 <= told < 110
        await asyncio.sleep(0)
        while len(home.answers) < 110:  # noqa: ASYNC110 - a timer's work, of which nobody tells
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_who_floods_without_an_end_is_cut() -> None:
    async def run() -> None:
        home = Home(max_pending=4)
        for _ in range(200):
            home.take(b"\xc1")
        assert home.is_cut
        home.peer.lose()

    asyncio.run(run())


def test_a_lost_connection_drops_what_was_asked() -> None:
    home = Home()
    home.take(asking(1.0))
    home.peer.lose()
    assert set(home.engine.forgotten) == {1}
    home.answer(1.0)
    assert home.answers == []
    assert home.reception.conversations == []


def test_who_holds_most_is_told_that_there_is_no_room_and_cut_in_the_middle_of_a_message() -> None:
    home = Home()
    home.take(asking(1.0))
    assert home.peer.held_bytes() > len(asking(1.0))
    home.peer.give_up()
    assert error_in(home.answers[0]).startswith("overloaded: the server holds 1024 MiB of messages")
    assert not home.is_cut
    home.peer.unfinished = 1 << 20
    assert home.peer.held_bytes() == 1 << 20
    home.peer.give_up()
    assert home.is_cut


def test_what_answers_nobody_is_not_sent() -> None:
    home = Home()
    home.peer.send(b"an answer")
    home.peer.close(1001, "")
    home.peer.expect_first_message(1.0)
    assert home.answers == []
