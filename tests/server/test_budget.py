"""What all peers together make the server hold is bounded, and who holds most pays."""

from __future__ import annotations

import random

from policyserve.server.budget import Budget, Holding


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


def test_a_message_is_held_from_its_first_bytes_to_its_answer() -> None:
    holding = Holding()
    for number, count in ((1, 10), (1, 20), (3, 5)):  # the second was too small to count
        holding.grow(number, count)
    assert [holding.held_bytes(answered) for answered in (0, 1, 2, 3)] == [35, 5, 5, 0]
    holding.grow(4, 7)
    holding.clear()
    assert holding.held_bytes(3) == 0
