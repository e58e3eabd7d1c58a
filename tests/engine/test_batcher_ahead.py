"""The full batch that stands behind the one that runs: handed over early, and still the batcher's to take back."""

from __future__ import annotations

import random

import pytest

from policyserve.engine.batcher import Batcher, Job


def job(session: int, number: int = 0) -> Job:
    return Job(session, 0.0, 1e9, (session, number))


def sessions(jobs: list[Job]) -> list[object]:
    return [one.session for one in jobs]


def filled(max_batch: int, count: int) -> Batcher:
    """One session's job runs, those of `count` others wait."""
    batcher = Batcher(max_batch, 1_000)
    batcher.add(job(0))
    batcher.take(0.0)
    for session in range(1, count + 1):
        batcher.add(job(session))
    return batcher


def test_only_a_full_batch_is_taken_ahead_and_only_one() -> None:
    assert filled(3, 2).take_ahead(0.0) == []
    batcher = filled(3, 7)
    assert sessions(batcher.take_ahead(0.0)) == [1, 2, 3]
    assert batcher.take_ahead(0.0) == []
    assert (batcher.running, batcher.queued) == (4, 4)
    batcher.done(1.0)
    assert batcher.take(1.0) == []  # the one behind runs now
    assert sessions(batcher.take_ahead(1.0)) == [4, 5, 6]


def test_nothing_is_taken_ahead_of_nothing_nor_for_a_policy_that_takes_one_at_a_time() -> None:
    batcher = Batcher(2, 100)
    for session in range(4):
        batcher.add(job(session))
    assert batcher.take_ahead(0.0) == []
    assert filled(1, 5).take_ahead(0.0) == []


def test_a_session_is_never_in_both_batches() -> None:
    batcher = filled(2, 2)
    for number in range(1, 4):
        batcher.add(job(0, number))
    assert sessions(batcher.take_ahead(0.0)) == [1, 2]
    batcher.add(job(1, 1))
    batcher.add(job(3))
    batcher.done(1.0)
    assert sessions(batcher.take_ahead(1.0)) == [3, 0]
    batcher.done(2.0)
    batcher.done(3.0)
    assert sessions(batcher.take(3.0)) == [1, 0]


def test_what_is_put_back_is_first_again_and_before_its_sessions_later_jobs() -> None:
    batcher = filled(2, 3)
    batcher.take_ahead(0.0)
    batcher.add(job(1, 1))
    batcher.put_back()
    assert (batcher.running, batcher.queued) == (1, 4)
    batcher.done(1.0)
    assert [one.payload for one in batcher.take(1.0)] == [(1, 0), (2, 0)]
    batcher.put_back()
    batcher.done(2.0)
    assert [one.payload for one in batcher.take(2.0)] == [(3, 0), (1, 1)]


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_lost_doubled_or_out_of_order_whatever_happens(seed: int) -> None:
    dice = random.Random(seed)
    batcher = Batcher(dice.randrange(1, 5), 1_000)
    added, ended = 0, []
    last: dict[object, int] = {}
    runner: list[list[Job]] = []
    for turn in range(2_000):
        now = turn * 1e-3
        move = dice.random()
        if move < 0.5 and batcher.queued < 100:
            added += 1
            batcher.add(Job(dice.randrange(8), now, 1e9, added))
        elif move < 0.95 and runner:
            ended += runner.pop(0)
            batcher.done(now)
        elif len(runner) == 2:
            runner.pop()
            batcher.put_back()
        for jobs in (batcher.take(now), batcher.take_ahead(now)):
            if jobs:
                runner.append(jobs)
        held = [one.session for jobs in runner for one in jobs]
        assert len(held) == len(set(held)) == batcher.running
        assert len(ended) + len(held) + batcher.queued == added
    for one in ended:
        assert one.payload > last.get(one.session, 0)
        last[one.session] = one.payload
