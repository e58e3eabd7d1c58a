"""Who is told what happens, and what an observer that raises costs: itself alone."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from policyserve.core.errors import Overloaded
from policyserve.core.messages import Timing
from policyserve.core.observer import Observer, Observers, SessionFacts
from policyserve.core.policy import ActionChunk

FACTS = SessionFacts(7, "10.0.0.7:5000", "openpi", "lab")
CHUNK, TIMING = ActionChunk(np.zeros(1)), Timing(1.0, 2.0, 3.0)


class Listening(Observer):
    """Keeps two of the facts."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_session_opened(self, session: SessionFacts) -> None:
        self.seen.append(session)

    def on_refusal(self, session: int, ticket: int | None, error: Exception) -> None:
        self.seen.append((session, ticket, error))


def observers(failed: list[object] | None = None) -> Observers:
    kept: list[object] = [] if failed is None else failed
    return Observers(lambda observer, error: kept.append((observer, error)))


def test_nobody_listens_to_anything_at_first() -> None:
    told = observers()
    names = [
        name.removeprefix("on_") for name, _ in inspect.getmembers(Observer, inspect.isfunction) if name[:3] == "on_"
    ]
    assert len(names) == 13
    assert [getattr(told, name) for name in names] == [()] * len(names)


def test_an_observer_is_told_what_it_overrides_and_costs_nothing_for_the_rest() -> None:
    told, listening = observers(), Listening()
    told.add(listening)
    assert told.answer == told.batch_started == told.session_closed == ()
    error = Overloaded("too much")
    for tell in told.session_opened:
        tell(FACTS)
    for tell in told.refusal:
        tell(7, 1, error)
    assert listening.seen == [FACTS, (7, 1, error)]


def test_several_observers_are_told_in_the_order_of_their_coming() -> None:
    told, first, second = observers(), Listening(), Listening()
    told.add(first)
    told.add(second)
    assert len(told.session_opened) == 2
    told.remove(first)
    told.remove(first)
    for tell in told.session_opened:
        tell(FACTS)
    assert (first.seen, second.seen) == ([], [FACTS])


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_an_observer_that_raises_is_dropped_and_the_others_hear_on(kind: type[BaseException]) -> None:
    class Broken(Observer):
        def on_session_opened(self, session: SessionFacts) -> None:
            raise kind("disk full")

        def on_answer(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise AssertionError("it is told nothing more")

    failed: list[object] = []
    told, broken, listening = observers(failed), Broken(), Listening()
    told.add(broken)
    told.add(listening)
    for tell in told.session_opened:
        tell(FACTS)
    for tell in told.answer:
        tell(7, 1, CHUNK, TIMING)
    assert listening.seen == [FACTS]
    ((observer, error),) = failed  # type: ignore[misc]
    assert (observer, str(error)) == (broken, "disk full")


def test_an_observer_need_not_hear_of_batches_in_the_event_loop() -> None:
    class Hearing(Observer):
        def on_batch_ended(self, size: int, seconds: float) -> None: ...

    class Deaf(Hearing):
        hears_inline_batches = False

    told = observers()
    told.add(Hearing())
    told.add(Deaf())
    assert (len(told.batch_ended), len(told.inline_batch_ended)) == (2, 1)


def test_a_trusted_observer_is_told_without_a_guard() -> None:
    told, listening = observers(), Listening()
    told.add(listening, is_trusted=True)
    assert told.session_opened == (listening.on_session_opened,)
