"""What the live page asks of a server at work: this second's sums, each session's last answers, and what one sees.

An observer while somebody looks, and at no other time. Written by the event loop's thread only.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from policyserve.core.log import Log
from policyserve.core.messages import Observation, Timing
from policyserve.core.observer import Observer
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec
from policyserve.observe.looks import Look

log = Log(__name__)

_MOST_ANSWERS = 100  # of a session, from which its p99 is made
_MARKS = 6  # takes of the sums, over which a session's rate is told
MOST_LOOKS = 8  # sessions that are looked into at a time


class Pace(NamedTuple):
    """How a session goes. hz: answers a second, over the last takes of the sums. p99_ms: of its last 100 answers."""

    hz: float
    p99_ms: float | None


class _Answers:
    """A session's: how many since somebody looks, how many there were at the last takes, and their last times."""

    __slots__ = ("count", "marks", "times_ms")

    def __init__(self, now: float) -> None:
        self.count = 0
        self.marks = deque([(now, 0)], maxlen=_MARKS)
        self.times_ms: deque[float] = deque(maxlen=_MOST_ANSWERS)


@dataclass
class Sums:
    """What happened since they were taken last. Times are added up over answers: divide by their number.

    network_s: from a message's first bytes to its last. busy_s: time that policies were at work, replicas added up.
    """

    answers: int = 0
    network_s: float = 0.0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    write_ms: float = 0.0
    busy_s: float = 0.0
    sizes: Counter[int] = field(default_factory=Counter)


class Watcher(Observer):
    """Collects for the page. spec: of a session's policy. receive_s: how long a session's newest message took.

    looks: into the sessions that somebody has chosen, by number.
    """

    def __init__(
        self,
        spec: Callable[[int], PolicySpec | None],
        receive_s: Callable[[int], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.looks: dict[int, Look] = {}
        self._spec, self._receive_s, self._clock = spec, receive_s, clock
        self._sums = Sums()
        self._answers: dict[int, _Answers] = {}  # by session
        self._running = 0  # calls of the policy under way
        self._counted_until = clock()

    def take(self) -> Sums:
        """The sums since the last time."""
        now = self._clock()
        self._count_busy(now)
        for answers in self._answers.values():
            answers.marks.append((now, answers.count))
        sums, self._sums = self._sums, Sums()
        return sums

    def pace(self, session: int) -> Pace:
        """How a session goes."""
        answers = self._answers.get(session)
        if answers is None:
            return Pace(0.0, None)
        at, count = answers.marks[0]
        times = sorted(answers.times_ms)
        hz = (answers.count - count) / max(self._clock() - at, 1.0)
        return Pace(hz, times[math.ceil(0.99 * len(times)) - 1])

    def look(self, session: int, make: Callable[[], Look]) -> Look:
        """The look into a session, from now on; of too many the one that nobody asked for longest ends."""
        look = self.looks.pop(session, None) or make()
        look.asked_at = self._clock()
        self.looks[session] = look
        if len(self.looks) > MOST_LOOKS:
            del self.looks[next(iter(self.looks))]
        return look

    def forget_looks(self, before: float) -> None:
        """End the looks that nobody asked for since `before`."""
        self.looks = {session: look for session, look in self.looks.items() if look.asked_at >= before}

    def on_session_closed(self, session: int) -> None:
        self._answers.pop(session, None)
        self.looks.pop(session, None)

    def on_request(self, session: int, ticket: int, observation: Observation | Any, arrived_at: float) -> None:
        self._sums.network_s += self._receive_s(session)
        look = self.looks.get(session)
        if look is not None:
            try:
                look.see(observation, self._spec(session), self._clock())
            except Exception as error:  # a stranger's values
                log.debug("session %d: its observation cannot be shown", session, cause=error)

    def on_answer(self, session: int, ticket: int, chunk: ActionChunk, timing: Timing) -> None:
        sums = self._sums
        sums.answers += 1
        sums.queue_ms += timing.queue_ms
        sums.infer_ms += timing.infer_ms
        sums.write_ms += max(timing.total_ms - timing.queue_ms - timing.infer_ms, 0.0)
        answers = self._answers.get(session)
        if answers is None:
            answers = self._answers[session] = _Answers(self._clock())
        answers.count += 1
        answers.times_ms.append(timing.total_ms)
        look = self.looks.get(session)
        if look is not None:
            try:
                look.act(chunk, self._spec(session), self._clock())
            except Exception as error:  # a policy's values
                log.debug("session %d: its actions cannot be shown", session, cause=error)

    def on_batch_started(self, sessions: Sequence[object], started_at: float) -> None:
        self._count_busy(started_at)
        self._running += 1

    def on_batch_ended(self, size: int, seconds: float) -> None:
        now = self._clock()
        if not self._running:  # it began before somebody looked
            self._running = 1
        self._count_busy(now)
        self._running -= 1
        self._sums.sizes[size] += 1

    def _count_busy(self, now: float) -> None:
        self._sums.busy_s += max(now - self._counted_until, 0.0) * self._running
        self._counted_until = max(now, self._counted_until)
