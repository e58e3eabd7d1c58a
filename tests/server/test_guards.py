"""What bounds peers: their time and their memory; and a client that errs all day, whose lines core/throttle bounds."""

from __future__ import annotations

import logging
import random
from itertools import pairwise
from typing import Any

import pytest

from policyserve.server.config import ServerConfig
from policyserve.server.guards import Budget, Facts, Pace, Verdict, Watch
from tests.server.live import frame, masked, open_raw, serving

CONFIG = ServerConfig(
    message_timeout_s=100, unread_timeout_s=50, idle_timeout_s=600, ping_interval_s=10, ping_timeout_s=200
)


def ends_at(facts: Any, config: ServerConfig = CONFIG) -> tuple[float | None, str]:
    """The first look, each 10 s, at which a session has to end; facts: of a time."""
    watch = Watch(config, 0.0)
    for now in range(10, 2_000, 10):
        verdict = watch.look(now, facts(now))
        if verdict is not None:
            return now, verdict.reason
    return None, ""


def quiet(now: float, **facts: Any) -> Facts:
    return Facts(now, 0, 0, False, None)._replace(**facts)


def test_a_peer_that_is_silent_is_gone() -> None:
    assert ends_at(lambda now: quiet(now, heard_at=50.0)) == (260, "silent for 200 s, gone")


def test_a_message_that_never_ends_ends_its_session() -> None:
    when, reason = ends_at(lambda now: quiet(now, is_mid_message=now >= 100))
    assert when == 210
    assert reason == "a message was not whole within 100 s (--message-timeout-s)"


def test_messages_that_end_may_follow_each_other_for_ever() -> None:
    busy = ServerConfig(message_timeout_s=100, ping_interval_s=10)
    assert ends_at(lambda now: quiet(now, is_mid_message=True, received=now // 90), busy)[0] is None


def test_a_reader_that_takes_nothing_is_cut_and_one_that_takes_little_is_not() -> None:
    when, reason = ends_at(lambda now: quiet(now, taken=5, received=now))
    assert when == 70
    assert "took nothing of its answers for 50 s" in reason
    assert ends_at(lambda now: quiet(now, taken=now // 40, received=now))[0] is None


def test_a_reader_that_is_slow_twice_is_not_blamed_for_the_time_between() -> None:
    taken = {10: 7, 20: 7, 500: 7, 510: 7, 520: 9}
    assert ends_at(lambda now: quiet(now, received=now, taken=taken.get(now)))[0] is None


def test_a_session_that_asks_nothing_is_closed_and_one_that_waits_for_an_answer_is_not() -> None:
    when, reason = ends_at(lambda now: quiet(now, received=min(now, 100)))
    assert when == 710
    assert reason == "nothing was asked for 600 s (--idle-timeout-s)"
    assert ends_at(lambda now: quiet(now, pending=1))[0] is None
    assert ends_at(quiet, ServerConfig(ping_interval_s=10))[0] is None  # by default for ever


@pytest.mark.parametrize("every_s", [3, 10])
def test_pings_keep_their_own_time_however_often_one_looks(every_s: int) -> None:
    watch = Watch(CONFIG, 0.0)
    pinged = [now for now in range(every_s, 100, every_s) if watch.is_ping_due(now)]
    gaps = {later - sooner for sooner, later in pairwise(pinged)}
    assert gaps == ({12} if every_s == 3 else {10})


def test_one_looks_as_often_as_the_shortest_time_out_needs() -> None:
    assert ServerConfig().watch_interval_s == 30
    assert ServerConfig(idle_timeout_s=5).watch_interval_s == 5
    assert ServerConfig(unread_timeout_s=2).watch_interval_s == 2


class Peer:
    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.is_given_up = False

    def held_bytes(self) -> int:
        return self.held

    def give_up(self) -> None:
        self.is_given_up = True
        self.held = 0

    def take(self, budget: Budget, count: int) -> None:
        self.held += count
        budget.grow(count)


def test_who_holds_most_is_given_up_and_not_who_came_last() -> None:
    hog, robot, other = Peer("hog"), Peer("robot"), Peer("other")
    budget = Budget(100, lambda: [hog, robot, other])
    hog.take(budget, 60)
    other.take(budget, 39)
    robot.take(budget, 1)
    assert not any(peer.is_given_up for peer in (hog, robot, other))
    robot.take(budget, 1)
    assert [peer.name for peer in (hog, robot, other) if peer.is_given_up] == ["hog"]


def test_who_gives_memory_back_is_told_when_somebody_was_given_up() -> None:
    reliefs: list[str] = []
    peer = Peer("robot")
    budget = Budget(100, lambda: [peer], lambda: reliefs.append("relieved"))
    peer.take(budget, 60)
    peer.held = 0
    peer.take(budget, 60)  # counted anew, and there is room
    assert reliefs == []
    peer.take(budget, 60)
    assert reliefs == ["relieved"]


def test_what_was_answered_meanwhile_costs_nobody_anything() -> None:
    peer = Peer("robot")
    budget = Budget(100, lambda: [peer])
    for _ in range(1_000):
        peer.take(budget, 60)
        peer.held = 0
    assert not peer.is_given_up


def test_held_bytes_never_stay_beyond_the_bound() -> None:
    dice = random.Random(0)
    peers = [Peer(str(number)) for number in range(20)]
    budget = Budget(1_000, lambda: [peer for peer in peers if not peer.is_given_up])
    for _ in range(5_000):
        peer = dice.choice(peers)
        if peer.is_given_up or dice.random() < 0.1:
            peer.held, peer.is_given_up = 0, False
        peer.take(budget, dice.randrange(200))
        assert sum(each.held for each in peers) <= 1_000


def test_a_client_that_errs_all_day_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving() as live:
        for _ in range(3):
            for _ in range(100):
                peer, _ = open_raw(live, path="/openpi")
                peer.sendall(masked(2, b"\xc1") * 10)
                peer.close()
            live.until(lambda server: server.counters.sessions_open == 0)
        with live.websocket() as good:
            good.send(frame([1.0]))
            good.recv()
    assert len(caplog.records) < 300 < 300 * 12  # opened, speaks, closed and ten refusals of each session


def test_a_hundred_frames_at_once_are_read_without_a_pause() -> None:
    pace = Pace()
    assert pace.count(0.0, 8) is None
    assert pace.count(0.1, 100) is None
    assert pace.wait_s == 0.0


def test_a_flood_is_read_at_a_hundred_frames_a_second() -> None:
    pace = Pace()
    now, read = 0.0, 0
    while now < 30.0:
        read += 8
        assert pace.count(now, read) is None
        now += max(pace.wait_s, 1e-4)
    assert read == pytest.approx(100 + 30 * 100, rel=0.02)


def test_a_flood_of_a_minute_is_cut_and_two_short_ones_are_not() -> None:
    pace = Pace()
    now, read = 0.0, 0

    def flood(seconds: float) -> Verdict | None:
        nonlocal now, read
        end = now + seconds
        while now < end:
            read += 8
            if verdict := pace.count(now, read):
                return verdict
            now += max(pace.wait_s, 1e-4)
        return None

    assert flood(50.0) is None
    now += 10.0
    assert flood(50.0) is None
    verdict = flood(20.0)
    assert verdict is not None
    assert verdict.code == 1008
    assert "100 frames a second" in verdict.reason


def test_frames_that_ask_for_something_cost_nothing() -> None:
    pace = Pace()
    for turn in range(10_000):
        assert pace.count(turn * 1e-4, 0) is None
    assert pace.wait_s == 0.0
