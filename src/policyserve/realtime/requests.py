"""The worker's side: whether to ask now, what to ask, and what failures mean. Pure; time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from policyserve.core.errors import (
    BadAction,
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    PolicyserveError,
    RemoteError,
    WireError,
)
from policyserve.realtime.pacing import BackOff, Latencies
from policyserve.realtime.prefix import Offer
from policyserve.realtime.values import Ask, Connect, Step

_BAD_ACTION = BadAction.code


class Seen(NamedTuple):
    """What observe() was given. plan_step, at: when it was taken; a callable's are those of its call."""

    observation: Any
    plan_step: int
    at: float
    number: int


@dataclass
class Counts:
    """How often what happened; RealtimeStatus says what each is."""

    requests: int = 0
    chunks: int = 0
    late: int = 0
    superseded: int = 0
    expired: int = 0
    stale: int = 0
    bad_answers: int = 0
    refused: int = 0
    sessions: int = 0
    rtc_missing: int = 0


class Requests:
    """What is under way between the robot and the server. At most one request is: servers answer in order.

    failed: what ended the asking for good, until a reset.
    """

    def __init__(self, period_s: float, random: Callable[[], float]) -> None:
        self.counts = Counts()
        self.latencies = Latencies()
        self.back_off = BackOff(period_s, random)
        self.offer: Offer | None = None
        self.method: str | None = None  # of RTC, as the server told it last
        self.in_flight: Ask | None = None
        self.seen: Seen | None = None
        self.failed: PolicyserveError | None = None
        self.error: str | None = None
        self.is_connected = False
        self.is_checked = False  # the connection was looked at since the last request
        self.is_troubled = False  # the last request, or attempt to connect, failed
        self.epoch = 0
        self._session: int | None = None
        self._session_epoch = 0  # what the server's session was opened for
        self._is_used = False  # the session has been asked something
        self._has_answered = False
        self._asked = 0  # number of the newest observation that was asked with

    @property
    def wants_renewal(self) -> bool:
        """Whether the server's session belongs to an earlier episode."""
        return self._session_epoch != self.epoch and self._is_used

    @property
    def has_news(self) -> bool:
        """Whether there is an observation that nothing was asked with; a callable always has one."""
        return self.seen is not None and (callable(self.seen.observation) or self.seen.number > self._asked)

    def is_overdue(self, now: float, timeout_s: float | None) -> bool:
        """Whether an answer takes longer than can be expected."""
        limit = self.latencies.overdue_s if timeout_s is None else timeout_s
        return self.in_flight is not None and now - self.in_flight.sent_at > limit

    def see(self, observation: Any, plan_step: int, now: float) -> None:
        """The newest observation takes the place of one that waits."""
        number = self.seen.number + 1 if self.seen is not None else self._asked + 1
        self.seen = Seen(observation, plan_step, now, number)

    def begin_epoch(self) -> None:
        """What was asked or observed before belongs to the past; a callable goes on to be called."""
        self.epoch += 1
        if self.seen is not None and not callable(self.seen.observation):
            self._asked = max(self._asked, self.seen.number)
            self.seen = None

    def opened(self, session: int | None) -> bool:
        """There is a connection; returns whether it is another one than before. session: its number; None: another."""
        self.is_connected = self.is_checked = True
        is_new = session is None or session != self._session
        if is_new:
            self.counts.sessions += 1
            self.latencies.begin(is_same_task=self._session_epoch == self.epoch)
            self._session, self._is_used, self._has_answered = session, False, False
        if not self._is_used:
            self._session_epoch = self.epoch
        return is_new

    def end(self, error: PolicyserveError, *, is_agreed: bool = True) -> None:
        """Ask no more until a reset. is_agreed: whether the greeting was taken; if not, a reset begins with it."""
        self.failed, self.error = error, str(error)
        if not is_agreed:
            self.is_connected, self._session = False, None

    def sent(self, ask: Ask, seen: Seen) -> None:
        self.in_flight, self._asked = ask, max(self._asked, seen.number)
        self.is_checked, self._is_used = False, True
        self.counts.requests += 1

    def answered(self, ask: Ask, now: float) -> bool:
        """An answer came; returns whether it belongs to the present."""
        if self.in_flight is None or self.in_flight.number != ask.number:
            self.counts.stale += 1
            return False
        self.in_flight = None
        if self._has_answered:  # a session's first answer may have taken compiling
            self.latencies.add(now - ask.observed_at)
        self._has_answered = True
        self.is_troubled = False
        self.back_off.over()
        if ask.epoch != self.epoch:
            self.counts.stale += 1
            return False
        return True

    def failure(self, step: Step, error: PolicyserveError, now: float) -> None:
        """A step failed: decide whether, and when, to go on."""
        if isinstance(step, Ask):
            if self.in_flight is None or self.in_flight.number != step.number:
                return
            self.in_flight = None
        self.error = str(error)
        self.is_troubled = True
        if isinstance(error, BadAction) or error.code == _BAD_ACTION:
            self.bad_answer(error, now)
        elif isinstance(error, (ConnectionLost, DeadlineExceeded)) or self._is_of_the_link(step, error):
            self.is_connected = self.is_checked = False
            self.counts.refused += isinstance(step, Ask)
            self.back_off.lost(now)
        elif error.retryable:
            self.counts.refused += 1
            self.is_connected = self.is_connected and not isinstance(step, Connect)
            self.back_off.refused(now, str(error))
        else:
            self.is_connected = self.is_connected and not isinstance(step, Connect)
            self.end(error)

    def bad_answer(self, error: PolicyserveError, now: float) -> None:
        """An answer that must not reach the robot; the next one may be fine."""
        self.error = str(error)
        self.is_troubled = True
        self.counts.bad_answers += 1
        self.back_off.refused(now, "")

    def _is_of_the_link(self, step: Step, error: PolicyserveError) -> bool:
        """Whether a new connection may mend it: a server that says what nobody asked for, or closed."""
        if isinstance(error, WireError):
            is_unsendable = isinstance(step, Ask) and _is_about(step.observation, error.path)
            return not is_unsendable and (isinstance(step, Ask) or self.is_connected)
        return isinstance(error, RemoteError) and error.retryable and error.close_code is not None

    def reset_failure(self) -> None:
        """Ask again, whatever failed before, which is told no more."""
        self.failed, self.error, self.is_troubled = None, None, False
        self.back_off.over()


def _is_about(observation: Any, path: str) -> bool:
    """Whether an error's path is one of the observation's, which was not sent then."""
    head = path.partition("/")[0]
    return not isinstance(observation, Mapping) or head in {str(key) for key in observation}


def as_ours(error: BaseException, where: str) -> PolicyserveError:
    """What a function of the user's raised, as an error of ours."""
    if isinstance(error, PolicyserveError):
        return error
    return ConfigError(f"{where} raised {type(error).__name__}: {error}")
