"""What a server needs of the place where its policy runs: the seam between conversations and everything behind.

`engine.local.LocalEngine` runs the policy in threads or processes of this machine. Another one, on a cluster say, is an
object with these members, handed to `Server`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from policyserve.core.effects import Outcome
from policyserve.core.errors import PolicyserveError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observers
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import OnStage, Task

log = Log(__name__)

# Called once with a request's outcome, in the event loop's thread.
OnOutcome: TypeAlias = Callable[[Outcome], None]
# A request: what it asks, when it arrived (time.monotonic), and who is told.
Waiting: TypeAlias = tuple[Task, float, OnOutcome]


def deliver(on_outcome: OnOutcome, outcome: Outcome, session: Hashable) -> None:
    """Tell a request's outcome; what that raises is logged, so that the others of its batch get their answers."""
    try:
        on_outcome(outcome)
    except Exception as error:  # a connection's trouble
        event = Event("answer_lost", session if isinstance(session, int) else None)
        log.error("session %s: an outcome was not delivered", session, event=event, cause=error)


@runtime_checkable
class Engine(Protocol):
    """Where a server's requests are answered. All methods are called in the event loop's thread.

    What must stay true: a session's requests are answered one after the other, in the order of their coming, and what
    the policy remembers of one session is seen by no other.
    """

    @property
    def stage(self) -> str:
        """What is done while no request can be answered ("loading", "restarting the policy"); empty while one can."""
        ...

    @property
    def is_working(self) -> bool:
        """Whether a policy is at work now; the event loop then sleeps between two messages and never polls."""
        ...

    @property
    def load(self) -> int:
        """Requests that have no answer yet."""
        ...

    async def start(self, on_stage: OnStage, observers: Observers) -> PolicySpec:
        """Load the policy and return its spec; called once, before all else but stage and close().

        on_stage: told what loading is at, from any thread. observers: told of batches and replaced policies.
        Raises what loading raised.
        """
        ...

    def submit(self, task: Task, arrived_at: float, on_outcome: OnOutcome) -> None:
        """Have a request answered: `on_outcome` is called exactly once, unless its session is forgotten before.

        It may be called before submit() returns. arrived_at: on time.monotonic's clock.
        Raises Overloaded if too many wait, or it would wait too long.
        """
        ...

    def forget(self, session: Hashable) -> None:
        """Drop a session's waiting requests and its policy state; the answer that is under way goes nowhere."""
        ...

    async def drained(self) -> None:
        """Wait until every request that was submitted has its outcome."""
        ...

    async def close(self, timeout_s: float) -> None:
        """Close the policy, whether or not start() has returned; give up waiting for it after timeout_s."""
        ...


class Figure(NamedTuple):
    """What an engine counts of its own, for /metrics. name: in Prometheus, behind `policyserve_`; grows: a counter."""

    name: str
    told: str
    value: float
    grows: bool = True


@runtime_checkable
class CountingEngine(Engine, Protocol):
    """An engine that counts what others have not."""

    def figures(self) -> Sequence[Figure]:
        """What it counts, always the same names."""
        ...


@runtime_checkable
class VersionedEngine(Engine, Protocol):
    """An engine that counts the policies that have answered."""

    def version_of(self, session: Hashable) -> int:
        """Which of them answers this session's next request, from 1 on."""
        ...


@runtime_checkable
class KeptEngine(Engine, Protocol):
    """An engine whose policy the server cannot exchange, but somebody else can."""

    def how_to_exchange(self, source: str, flags: Sequence[str], *, sessions_stay: bool) -> str:
        """What to do in place of that, for people: a command, say.

        source: the policy that is wanted, as `policyserve serve` takes it, with its flags; empty: the one before.
        """
        ...


@dataclass(frozen=True)
class Change:
    """Another policy takes the place of the one that a server has had.

    spec: the next one's. closing: what sessions of the one before are closed with, once they are answered; None: they
    stay. sessions_move: they are answered by the next one from their next request on; else they end where they are.
    """

    spec: PolicySpec
    closing: PolicyserveError | None = None
    sessions_move: bool = True


@runtime_checkable
class ChangingEngine(Engine, Protocol):
    """An engine whose policy may be followed by another one."""

    on_change: Callable[[Change], None]
    """Called just before requests go to the next policy; what it raises keeps that policy out.

    Requests that were submitted before are still answered by the policy before.
    """
