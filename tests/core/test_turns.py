"""Who waits for the end of the event loop's turn: nobody who asks alone."""

from __future__ import annotations

from itertools import cycle, islice

from policyserve.core.turns import Turns


def waits_of_two(turns: Turns, requests: int) -> list[bool]:
    """Two sessions ask by turns, each request in a turn of its own."""
    waits: list[bool] = []
    for session in islice(cycle("ab"), requests):
        waits.append(turns.waits(session))
        if waits[-1]:
            turns.ended(1)
    return waits


def test_a_session_that_asks_alone_never_waits() -> None:
    turns = Turns()
    assert not any(turns.waits("a") for _ in range(100))


def test_a_second_session_is_a_reason_to_try_and_all_wait_after_a_shared_turn() -> None:
    turns = Turns()
    assert not turns.waits("a")
    assert [turns.waits(session) for session in "bca"] == [True, True, True]
    turns.ended(3)
    assert [turns.waits(session) for session in "aaa"] == [True, True, True]


def test_sessions_that_never_share_a_turn_seldom_wait() -> None:
    waits = waits_of_two(Turns(), 1000)
    assert 1000 // 20 <= sum(waits) <= 1000 // 16


def test_a_turn_that_is_shared_again_is_noticed_after_vain_ones() -> None:
    turns = Turns()
    waits_of_two(turns, 100)
    tried = next(number for number, session in enumerate(cycle("ab")) if turns.waits(session))
    assert tried <= 17
    turns.ended(2)
    assert turns.waits("a")


def test_the_one_who_is_left_of_a_crowd_soon_waits_no_more() -> None:
    turns = Turns()
    turns.waits("a")
    turns.waits("b")
    turns.ended(32)
    waits: list[bool] = []
    for _ in range(50):
        waits.append(turns.waits("a"))
        if waits[-1]:
            turns.ended(1)
    assert waits == [True] * 8 + [False] * 42


def test_a_turn_of_one_now_and_then_changes_nothing_for_a_crowd() -> None:
    turns = Turns()
    turns.waits("a")
    turns.waits("b")
    for count in (5, 1, 1, 7, 1, 2):
        assert turns.waits("a")
        turns.ended(count)
    assert turns.waits("a")
