"""A lane over a carrier whose calls the test ends by hand: groups, repeats, and what becomes of state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import DeadlineExceeded, NotReady, Overloaded, PolicyFailed, PolicyLost
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec
from policyserve.engine.batcher import Batcher
from policyserve.engine.routing import Router
from policyserve.engine.scheduler import Scheduler
from policyserve.ray.groups import Answers, Described, read_group, write_answers
from policyserve.ray.lane import Edge, Lane
from tests.engine.lanes import HandCarrier
from tests.engine.running import NOBODY, PATIENCE_S, infer, task, until, value

DESCRIBED = Described(PolicySpec("hand", None, None), "1")


class Bench:
    """Two lanes of one edge, and the calls that they have made."""

    def __init__(self, **settings: Any) -> None:
        self.carrier = HandCarrier(DESCRIBED)
        self.edge = Edge("edge ", DESCRIBED.digest, **{"call_timeout_s": 1_000.0, **settings})
        self.lane, self.other = Lane(self.carrier, self.edge), Lane(self.carrier, self.edge)

    async def called(self, count: int) -> None:
        await until(lambda: len(self.carrier.calls) >= count)

    def states(self, call: int) -> list[Any]:
        return [one.state for one in read_group(*self.carrier.calls[call]).tasks]

    async def answered(self, call: int, outcomes: asyncio.Future[Sequence[Outcome]]) -> list[float]:
        await self.called(call + 1)
        self.carrier.echo(call)
        return [value(one) for one in await outcomes]


def run(talk: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(talk(), PATIENCE_S)

    asyncio.run(bounded())


def test_a_sessions_state_goes_with_its_requests_by_whichever_lane() -> None:
    async def talk() -> None:
        bench = Bench()
        assert await bench.answered(0, infer(bench.lane, task(1, 3.0), task(2, 4.0))) == [3.0, 4.0]
        assert await bench.answered(1, infer(bench.other, task(2))) == [0.0]
        assert await bench.answered(2, infer(bench.lane, task(2), task(1))) == [0.0, 0.0]
        assert [bench.states(call) for call in range(3)] == [[None, None], [1], [2, 1]]

    run(talk)


def test_a_token_is_dropped_with_the_replica_that_it_was_for_and_the_session_begins_anew() -> None:
    async def talk() -> None:
        bench = Bench(stays=True)
        await bench.answered(0, infer(bench.lane, task(1), task(2)))
        asked = infer(bench.lane, task(1), task(2))
        await bench.called(2)
        now = time.monotonic()
        told = [PolicyLost("gone"), Answered(ActionChunk(np.zeros(1), 7), now, now)]
        bench.carrier.ends[1].set_result(write_answers(Answers(told, DESCRIBED.digest, "1"), now))
        assert isinstance((await asked)[0], PolicyLost)
        await bench.answered(2, infer(bench.lane, task(1), task(2)))
        assert bench.states(2) == [None, 7]

    run(talk)


def test_a_replica_is_told_of_sessions_that_have_ended_with_their_tokens() -> None:
    async def talk() -> None:
        bench = Bench(stays=True)
        bench.lane.forget(3)  # which has never asked
        await bench.answered(0, infer(bench.lane, task(1), task(2)))
        bench.lane.forget(1)
        await bench.called(2)
        farewell = read_group(*bench.carrier.calls[1])
        assert (list(farewell.tasks), farewell.forgotten) == ([], [("edge 1", 1)])
        bench.carrier.ends[1].set_exception(PolicyLost("gone"))  # nobody minds
        asked = infer(bench.lane, task(2))
        await bench.called(3)
        bench.lane.forget(2)
        assert await bench.answered(2, asked) == [0.0]
        await bench.called(4)
        assert read_group(*bench.carrier.calls[3]).forgotten == [("edge 2", 2)]
        bench.lane.end()

    run(talk)


def test_where_states_travel_nobody_is_told_of_sessions_that_have_ended() -> None:
    async def talk() -> None:
        bench = Bench()
        await bench.answered(0, infer(bench.lane, task(1)))
        bench.lane.forget(1)
        assert await bench.answered(1, infer(bench.lane, task(1))) == [0.0]
        assert bench.states(1) == [None]

    run(talk)


def test_what_replicas_usually_work_at_a_group_is_counted_from_its_first_batch_on() -> None:
    async def talk() -> None:
        bench = Bench()
        asked = infer(bench.lane, task(1), task(2))
        await bench.called(1)
        now = time.monotonic()
        told = [Answered(ActionChunk(np.zeros(1)), now - ago_s, now) for ago_s in (3.0, 8.0)]
        bench.carrier.ends[0].set_result(write_answers(Answers(told, DESCRIBED.digest, "1"), now))
        await asked
        assert bench.edge.work_s is not None
        assert 8.0 <= bench.edge.work_s < 8.0 + PATIENCE_S

    run(talk)


@pytest.mark.parametrize("lost", [PolicyLost("its replica died"), DeadlineExceeded("no answer within 2 s")])
def test_a_group_whose_replica_is_lost_or_silent_is_sent_again_as_it_was(lost: Exception) -> None:
    async def talk() -> None:
        bench = Bench()
        await bench.answered(0, infer(bench.lane, task(1)))
        asked = infer(bench.lane, task(1, 5.0))
        await bench.called(2)
        bench.carrier.ends[1].set_exception(lost)
        assert await bench.answered(2, asked) == [5.0]
        assert bench.states(1) == bench.states(2) == [1]
        assert bench.edge.tallies.sent_again == 1
        assert bench.edge.tallies.timeouts == isinstance(lost, DeadlineExceeded)

    run(talk)


def test_a_replica_that_cannot_be_reached_costs_no_try_since_no_observation_can_be_the_reason() -> None:
    async def talk() -> None:
        bench = Bench(max_tries=1)
        asked = infer(bench.lane, task(1, 5.0))
        for call in range(2):
            await bench.called(call + 1)
            bench.carrier.ends[call].set_exception(NotReady("the way is interrupted"))
        assert await bench.answered(2, asked) == [5.0]

    run(talk)


def test_a_silent_replica_may_be_chosen_again_so_a_group_has_twice_as_many_tries() -> None:
    async def talk() -> None:
        bench = Bench(max_tries=2)
        asked = infer(bench.lane, task(1, 5.0))
        for call in range(3):
            await bench.called(call + 1)
            bench.carrier.ends[call].set_exception(DeadlineExceeded("no answer"))
        assert await bench.answered(3, asked) == [5.0]

    run(talk)


def test_a_group_waits_while_there_is_no_replica_and_ends_with_its_requests() -> None:
    async def talk() -> None:
        bench = Bench()
        bench.edge.is_up.clear()
        asked, refused = infer(bench.lane, task(1, 5.0)), infer(bench.other, task(2))
        await asyncio.sleep(0)
        bench.other.take_back(2)
        assert isinstance((await refused)[0], DeadlineExceeded)
        assert bench.carrier.calls == []
        bench.edge.is_up.set()
        assert await bench.answered(0, asked) == [5.0]

    run(talk)


def test_a_group_is_not_sent_for_ever_since_an_observation_may_be_what_kills() -> None:
    async def talk() -> None:
        bench = Bench(max_tries=3)
        asked = infer(bench.lane, task(1))
        for call in range(3):
            await bench.called(call + 1)
            bench.carrier.ends[call].set_exception(PolicyLost("its process died"))
        (outcome,) = await asked
        assert type(outcome) is PolicyLost
        assert "replicas were asked one after the other, 3 at most" in str(outcome)
        assert len(bench.carrier.calls) == 3

    run(talk)


def test_a_request_that_kills_is_given_up_alone_and_those_that_were_lost_with_it_are_answered() -> None:
    async def talk() -> None:
        bench = Bench(max_tries=3)
        asked = infer(bench.lane, task(1, 1.0), task(2, 2.0), task(3, 3.0))
        beside = infer(bench.other, task(4, 4.0))
        for call in range(4):  # both groups, twice
            await bench.called(call + 1)
            bench.carrier.ends[call].set_exception(PolicyLost("its process died"))
        for call in range(4, 8):
            await bench.called(call + 1)
            assert len(bench.carrier.calls) == call + 1  # one at a time
            (one,) = read_group(*bench.carrier.calls[call]).tasks
            if one.observation["x"] == 2.0:
                bench.carrier.ends[call].set_exception(PolicyLost("its process died"))
            else:
                bench.carrier.echo(call)
        first, second, third = await asked
        assert (value(first), type(second), value(third)) == (1.0, PolicyLost, 3.0)
        assert [value(one) for one in await beside] == [4.0]
        assert bench.edge.tallies.sent_again == 6

    run(talk)


def test_a_request_whose_deadline_passed_has_no_last_call() -> None:
    async def talk() -> None:
        bench = Bench(max_tries=2)
        asked = infer(bench.lane, task(1, 1.0), task(2, 2.0))
        await bench.called(1)
        bench.carrier.ends[0].set_exception(PolicyLost("its process died"))
        await bench.called(2)
        bench.lane.take_back(2)
        bench.carrier.echo(1)
        first, second = await asked
        assert (value(first), type(second)) == (1.0, DeadlineExceeded)
        assert len(bench.carrier.calls) == 2

    run(talk)


def test_a_replica_that_takes_no_more_is_overload() -> None:
    async def talk() -> None:
        bench = Bench()
        asked = infer(bench.lane, task(1))
        await bench.called(1)
        bench.carrier.ends[0].set_exception(Overloaded("all are busy"))
        assert isinstance((await asked)[0], Overloaded)

    run(talk)


def test_a_way_that_breaks_otherwise_fails_its_requests_alone() -> None:
    async def talk() -> None:
        bench = Bench()
        asked = infer(bench.lane, task(1))
        await bench.called(1)
        bench.carrier.ends[0].set_exception(RuntimeError("a bug"))
        assert isinstance((await asked)[0], PolicyFailed)
        assert await bench.answered(1, infer(bench.lane, task(1, 2.0))) == [2.0]

    run(talk)


def test_another_spec_answers_nobody_who_was_told_ours() -> None:
    async def talk() -> None:
        told: list[None] = []
        bench = Bench(on_other_spec=lambda: told.append(None))
        asked = infer(bench.lane, task(1))
        await bench.called(1)
        bench.carrier.echo(0, digest="another", outcomes=[])
        assert await bench.answered(1, asked) == [0.0]  # by a replica of the version before
        assert told == [None]
        asked = infer(bench.lane, task(1))
        await bench.called(3)
        bench.edge.is_replaced = True
        bench.carrier.echo(2, digest="another", outcomes=[])
        assert isinstance((await asked)[0], NotReady)

    run(talk)


def test_an_answer_to_a_request_that_was_refused_changes_nothing_and_the_lane_is_free() -> None:
    async def talk() -> None:
        bench = Bench()
        await bench.answered(0, infer(bench.lane, task(1)))
        hanging = infer(bench.lane, task(1))
        await bench.called(2)
        bench.lane.take_back(1)  # its deadline passed: nobody waits for this group
        assert isinstance((await hanging)[0], DeadlineExceeded)
        assert await bench.answered(2, infer(bench.other, task(1))) == [0.0]
        assert bench.states(2) == [1]

    run(talk)


def test_of_a_group_with_others_a_refused_request_alone_changes_nothing() -> None:
    async def talk() -> None:
        bench = Bench()
        asked = infer(bench.lane, task(1), task(2))
        bench.lane.take_back(1)
        await bench.answered(0, asked)
        await bench.answered(1, infer(bench.other, task(1), task(2)))
        assert bench.states(1) == [None, 1]
        assert bench.edge.tallies.late == 1

    run(talk)


def test_a_sessions_next_request_waits_for_its_last_and_a_forgotten_one_begins_anew() -> None:
    async def talk() -> None:
        bench = Bench()
        first, second = infer(bench.lane, task(1)), infer(bench.lane, task(1), task(2))
        beside = infer(bench.lane, task(3, 3.0))
        await bench.called(2)
        bench.lane.forget(1)
        assert await bench.answered(1, beside) == [3.0]  # it has nothing to wait for
        await bench.answered(0, first)
        await bench.answered(2, second)
        assert bench.states(2) == [1, None]
        await bench.answered(3, infer(bench.lane, task(1)))
        assert bench.states(3) == [None]

    run(talk)


def test_a_lane_that_has_ended_tells_nobody() -> None:
    async def talk() -> None:
        bench = Bench()
        asked = infer(bench.lane, task(1))
        await bench.called(1)
        bench.lane.end()
        await asyncio.sleep(0)
        assert not asked.done()

    run(talk)


def test_a_call_may_take_eight_times_the_usual_and_two_seconds_at_least() -> None:
    edge = Edge("", "")
    assert edge.timeout_s == 10.0
    edge.note_time(0.01)
    assert edge.timeout_s == 2.0
    for _ in range(100):
        edge.note_time(1.0)
    assert 7.9 < edge.timeout_s <= 8.0


def test_a_request_that_is_late_without_a_replica_is_told_that_there_is_none() -> None:
    async def talk() -> None:
        bench = Bench()
        scheduler = Scheduler(bench.lane, Batcher(8, 100, 0.0), 0.05, NOBODY, why_late=bench.lane.why_late)

        async def told(*sessions: int) -> set[str]:
            asked: list[asyncio.Future[Outcome]] = []
            for session in sessions:
                asked.append(asyncio.get_running_loop().create_future())
                scheduler.submit(task(session), time.monotonic(), asked[-1].set_result)
            return {str(outcome) for outcome in await asyncio.gather(*asked)}

        bench.edge.is_up.clear()
        late = "no answer within 0.05 s; "
        assert await told(1, 2) == {late + "no replica answers: waiting for a replica"}  # the second behind the first
        assert bench.carrier.calls == []
        await scheduler.drained()
        bench.edge.is_up.set()
        assert await told(1) == {late + "the policy is still at it"}
        assert len(bench.carrier.calls) == 1

    run(talk)


def test_a_lane_says_why_no_replica_is_reached_until_it_asks_again() -> None:
    async def talk() -> None:
        bench = Bench()
        asked = infer(bench.lane, task(1, 1.0))
        await bench.called(1)
        assert bench.lane.why_late() == ""
        bench.carrier.ends[0].set_exception(NotReady("no replica is connected"))
        await until(bench.lane.why_late)
        assert bench.lane.why_late() == "no replica answers: no replica is connected"
        assert bench.other.why_late() == ""  # a replica may be at its group
        await bench.called(2)
        assert bench.lane.why_late() == ""
        assert await bench.answered(1, asked) == [1.0]

    run(talk)


def test_under_load_a_group_is_what_has_come_meanwhile_and_deadlines_hold() -> None:
    async def talk() -> None:
        bench = Bench()
        outcomes: list[tuple[Hashable, Outcome]] = []

        def submit(session: int, scheduler: Any) -> None:
            asked = task(session, float(session))
            scheduler.submit(asked, time.monotonic(), lambda one: outcomes.append((session, one)))

        scheduler = Scheduler(bench.lane, Batcher(8, 100, 0.0), 0.1, NOBODY)
        for session in range(5):
            submit(session, Router([scheduler], state_travels=True))
        await bench.called(1)
        assert len(bench.states(0)) == 1  # nobody waits for company
        bench.carrier.echo(0)
        await bench.called(2)
        assert len(bench.states(1)) == 4
        await until(lambda: len(outcomes) == 5)
        assert [isinstance(one, DeadlineExceeded) for _, one in outcomes] == [False, True, True, True, True]
        await scheduler.drained()
        assert np.isfinite(bench.edge.timeout_s)

    run(talk)
