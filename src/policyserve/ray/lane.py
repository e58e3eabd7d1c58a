"""A lane: one way from an edge to the replicas of a policy, on which one group of requests goes after the other.

A group whose call ends without an answer is sent again, since a policy's state changes only where an outcome is told.
What must stay true: of each group one answer counts, the first; and no two requests of a session are under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import DeadlineExceeded, NotReady, Overloaded, PolicyFailed, PolicyLost, PolicyserveError
from policyserve.core.log import Log
from policyserve.engine.answering import Task
from policyserve.engine.isolated.codec import Packed
from policyserve.engine.keeping import NumberedKeeping
from policyserve.engine.runner import OnDone
from policyserve.ray.groups import Answers, Group, Parts, read_answers, writable, write_group
from policyserve.ray.tries import Tries

log = Log(__name__)

WAITING = "waiting for a replica"
_LEAST_TIMEOUT_S = 2.0
_FIRST_TIMEOUT_S = 10.0  # while no group has been answered
_USUAL_TIMES = 8.0  # of a group's usual time: then another replica is asked
_WEIGHT = 0.2  # of the newest
_PAUSE_S = 0.2  # after a replica that could not be reached


class Carrier(Protocol):
    """What brings a group to a replica of its own choice and the answers back."""

    async def send(self, group: Packed, timeout_s: float) -> Parts:
        """Have a replica answer; raises PolicyLost if it was lost meanwhile, DeadlineExceeded after timeout_s.

        Raises NotReady if the replica could not be reached, so that it has done nothing with it.
        Raises Overloaded where no replica takes any more.
        """
        ...


@dataclass
class Tallies:
    """What the lanes of an edge count."""

    calls: int = 0
    requests: int = 0  # in those calls
    sent_again: int = 0
    timeouts: int = 0
    late: int = 0  # answers whose request had another outcome already
    state_bytes: int = 0  # of the last answers' states, one group's


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class Edge:
    """What the lanes of one edge share. name: before its sessions' names; digest: of the spec its sessions were told.

    call_timeout_s: of one call; None: eight times a group's usual time, 2 s at least. max_tries: calls for one group
    that may be lost with their replicas; twice as many may time out.
    on_other_spec: told when a replica serves another spec. is_replaced: all do, and the sessions are to end.
    on_lost: told when a call ends without an answer.
    is_up: whether there is a replica; without one nobody asks. last_calls: held by a call that may be lost again.
    stays: whether replicas keep what policies remember, so that a session's state is its replica's token.
    usual_s: how long a call takes; work_s: how long of that a replica is at its group, from its first batch to its last
    one's end.
    """

    name: str
    digest: str
    call_timeout_s: float | None = None
    max_tries: int = 3
    on_other_spec: Callable[[], None] = lambda: None
    on_lost: Callable[[], None] = lambda: None
    keeping: NumberedKeeping = field(default_factory=NumberedKeeping)
    tallies: Tallies = field(default_factory=Tallies)
    usual_s: float | None = None
    work_s: float | None = None
    is_replaced: bool = False
    stays: bool = False
    is_up: asyncio.Event = field(default_factory=_set_event)
    last_calls: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def stage(self) -> str:
        """What is waited for while there is no replica, empty while there is one."""
        return "" if self.is_up.is_set() else WAITING

    @property
    def timeout_s(self) -> float:
        """Of the next call."""
        if self.call_timeout_s is not None:
            return self.call_timeout_s
        return _FIRST_TIMEOUT_S if self.usual_s is None else max(_USUAL_TIMES * self.usual_s, _LEAST_TIMEOUT_S)

    def note_time(self, took_s: float) -> None:
        """A call was answered."""
        self.usual_s = usual(self.usual_s, took_s, _WEIGHT)

    def note_work(self, took_s: float) -> None:
        """A replica has worked so long at a group."""
        self.work_s = usual(self.work_s, took_s)


def usual(before: float | None, newest: float, weight: float = 0.05) -> float:
    """What is usual by now: a mean in which the newest value has this weight."""
    return newest if before is None else before + weight * (newest - before)


class _UnderWay:
    """A group that has no outcomes yet. numbers: of its requests, once it was sent.

    unreached: why its last call reached no replica; empty while one may be at it.
    """

    def __init__(self, tasks: Sequence[Task], on_done: OnDone) -> None:
        self.tasks = tasks
        self.on_done = on_done
        self.sessions = {task.session for task in tasks}
        self.numbers: dict[Hashable, int] = {}
        self.refused: set[Hashable] = set()  # sessions that were told another outcome
        self.forgotten: set[Hashable] = set()  # sessions that end with it
        self.unreached = ""
        self.work: asyncio.Task[Sequence[Outcome]] | None = None


class Lane:
    """A scheduler's StartedRunner whose policy is where a Carrier goes. All methods: in the event loop's thread.

    on_broken: told when a replica's policy broke; the replica looks after that itself.
    """

    inline = None  # nothing of it runs in the event loop

    def __init__(self, carrier: Carrier, edge: Edge) -> None:
        self.on_broken: Callable[[str], None] | None = None
        self._carrier = carrier
        self._edge = edge
        self._groups: list[_UnderWay] = []  # in the order of their coming
        self._farewells: set[asyncio.Task[None]] = set()  # to replicas that keep sessions which have ended

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        """Have a group answered; `on_done` is called with one outcome per task, in order."""
        self._groups.append(_UnderWay(batch, on_done))
        self._send_what_can()

    def take_back(self, session: Hashable) -> None:
        """The session's last request had another outcome: what it is answered changes nothing."""
        group = self._last_of(session)
        if group is None:
            return
        group.refused.add(session)
        if group.numbers:
            self._edge.keeping.take_back(session)
        if group.refused == group.sessions and group.work is not None:
            group.work.cancel()  # nobody waits for it

    def forget(self, session: Hashable) -> None:
        """Drop a session's policy state, after the request that may be under way."""
        group = self._last_of(session)
        if group is None:
            self._forget(session)
        else:
            group.forgotten.add(session)

    def why_late(self) -> str:
        """Why no replica is at the group that came first, nor at what waits behind it; empty while one may be."""
        why = self._edge.stage or (self._groups[0].unreached if self._groups else "")
        return f"no replica answers: {why}" if why else ""

    def end(self) -> None:
        """Give up what is under way; its outcomes go nowhere."""
        groups, self._groups = self._groups, []
        for group in groups:
            if group.work is not None:
                group.work.cancel()
        for farewell in self._farewells:
            farewell.cancel()

    def _forget(self, session: Hashable) -> None:
        token = self._edge.keeping.forget(session)
        if self._edge.stays and token is not None:
            packed = write_group(Group((), self._edge.digest, [(session, token)]), self._edge.name)
            farewell = asyncio.get_running_loop().create_task(self._say(packed))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)

    async def _say(self, packed: Packed) -> None:
        with suppress(PolicyserveError):  # a replica that is not reached forgets the session by itself
            await self._carrier.send(packed, self._edge.timeout_s)

    def _last_of(self, session: Hashable) -> _UnderWay | None:
        return next((group for group in reversed(self._groups) if session in group.sessions), None)

    def _send_what_can(self) -> None:
        before: set[Hashable] = set()  # sessions of groups that come first
        for group in self._groups:
            if group.work is None and not group.sessions & before:
                group.work = asyncio.get_running_loop().create_task(self._answered(group, self._begin(group)))
                group.work.add_done_callback(lambda work, group=group: self._end(group, work))
            before |= group.sessions

    def _begin(self, group: _UnderWay) -> list[Task]:
        """The group's tasks with their states, as the answers before have left these."""
        tasks = []
        for task in group.tasks:
            group.numbers[task.session], state = self._edge.keeping.begin(task.session)
            tasks.append(task._replace(state=state))
        for session in group.refused:
            self._edge.keeping.take_back(session)
        return tasks

    async def _answered(self, group: _UnderWay, tasks: list[Task]) -> Sequence[Outcome]:
        """The group's outcomes: those of the first call that brings any.

        The last call for requests that were lost with replicas is made for each of them alone, since one of them may
        be the reason.
        """
        tries = Tries(self._edge.max_tries)
        outcomes = await self._tried(group, tasks, tries)
        if outcomes is None:
            outcomes = [await self._tried_alone(group, task, tries) for task in tasks]
        return self._kept(group, outcomes)

    async def _tried_alone(self, group: _UnderWay, task: Task, tries: Tries) -> Outcome:
        """What the last call brings for one of them. An edge makes one at a time: no other suspect is lost with it."""
        async with self._edge.last_calls:
            if task.session in group.refused:
                return _nobody_waits()
            outcomes = await self._tried(group, [task], replace(tries, is_alone=True))
        assert outcomes is not None, "it is alone"
        return outcomes[0]

    async def _tried(self, group: _UnderWay, tasks: list[Task], tries: Tries) -> Sequence[Outcome] | None:
        """What a call brings for tasks of a group, after as many tries as it takes; None: the last is made alone."""
        edge = self._edge
        try:
            packed = write_group(Group(tasks, edge.digest), edge.name)
        except Exception as cause:  # an observation that no dialect makes
            failed = PolicyFailed(f"the observations cannot go to another machine: {cause}")
            failed.__cause__ = cause
            return [failed] * len(tasks)
        error: PolicyserveError = PolicyLost("no replica was asked")
        is_again = tries.is_alone
        while not tries.are_spent:  # and at most until nobody waits for the group, which cancels this
            if tries.want_alone:
                return None
            await edge.is_up.wait()
            edge.tallies.calls += 1
            edge.tallies.sent_again += is_again
            edge.tallies.requests += len(tasks)
            is_again = True
            group.unreached = ""
            try:
                answers = await self._call(packed)
            except NotReady as unreached:
                group.unreached = str(unreached)
                await asyncio.sleep(_PAUSE_S)
                continue
            except Overloaded as refused:
                return [refused] * len(tasks)
            except PolicyLost as lost:
                error = lost
                tries.lost += 1
                continue
            except DeadlineExceeded as late:
                error = late
                tries.silent += 1  # Serve may choose a silent replica again; one that is lost it does not
                continue
            if answers.digest == edge.digest:
                self._note_broken(answers)
                return answers.outcomes
            if edge.is_replaced:
                return [NotReady("another version of the policy took over: connect again")] * len(tasks)
            edge.on_other_spec()
            await asyncio.sleep(_PAUSE_S)  # replicas of the version before may still be there
        told = f"{error}; replicas were asked one after the other, {edge.max_tries} at most"
        return [PolicyLost(told) for _ in tasks]

    async def _call(self, packed: Packed) -> Answers:
        began_at = time.monotonic()
        try:
            answer, arrays = await self._carrier.send(packed, self._edge.timeout_s)
        except (DeadlineExceeded, NotReady, PolicyLost) as error:
            self._edge.tallies.timeouts += isinstance(error, DeadlineExceeded)
            self._edge.on_lost()
            raise
        now = time.monotonic()
        self._edge.note_time(now - began_at)
        answers = read_answers(answer, writable(arrays), now)
        started_at = min((one.started_at for one in answers.outcomes if isinstance(one, Answered)), default=None)
        if started_at is not None:
            self._edge.note_work(now - started_at)
        return answers

    def _kept(self, group: _UnderWay, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """The outcomes, with their states kept for the sessions' next requests."""
        keeping, tallies, size = self._edge.keeping, self._edge.tallies, 0
        for task, outcome in zip(group.tasks, outcomes, strict=True):
            if self._edge.stays and isinstance(outcome, PolicyLost):
                keeping.forget(task.session)
            elif not isinstance(outcome, Answered):
                keeping.take_back(task.session)
            elif keeping.keep(task.session, group.numbers[task.session], outcome.chunk.state):
                size += len(outcome.chunk.state or b"")
            else:
                tallies.late += 1
        tallies.state_bytes = size
        return outcomes

    def _note_broken(self, answers: Answers) -> None:
        if answers.broken:
            log.warning("a replica's policy is being replaced: %s", answers.broken)
            if self.on_broken is not None:
                self.on_broken(answers.broken)

    def _end(self, group: _UnderWay, work: asyncio.Task[Sequence[Outcome]]) -> None:
        if group not in self._groups:
            return  # the lane has ended
        self._groups.remove(group)
        for session in group.forgotten:
            self._forget(session)
        outcomes = _outcomes_of(work, len(group.tasks))
        self._send_what_can()
        group.on_done(outcomes)


def _outcomes_of(work: asyncio.Task[Sequence[Outcome]], count: int) -> Sequence[Outcome]:
    if work.cancelled():
        return [_nobody_waits()] * count
    error = work.exception()
    if error is None:
        return work.result()
    failed = PolicyFailed(f"the way to the replicas failed: {error}")  # a bug, or a Carrier's
    failed.__cause__ = error
    return [failed] * count


def _nobody_waits() -> PolicyserveError:
    return DeadlineExceeded("nobody waits for it any more")
