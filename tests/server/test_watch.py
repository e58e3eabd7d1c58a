"""When a session has tried the server's patience, at looks that come when they come."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from policyserve.server.config import ServerConfig
from policyserve.server.watch import Facts, Watch

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
