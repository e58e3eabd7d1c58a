"""What policies remember of sessions: it changes where a session is told an answer, and never otherwise.

A request that was refused at its deadline has changed nothing, even if the policy answers it after all. What it answers
is not known to the robot, whose next observation goes on from what it was told last. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


class Keeping:
    """The states of sessions whose requests are answered in turn, batch after batch, as a policy's thread does it.

    An answer counts as told until take_back() says that it was not. That comes before the session's next request, and
    before the next but one batch has ended: so long the state before is kept, too. None is no state.
    """

    def __init__(self) -> None:
        self._states: dict[Hashable, Any] = {}
        self._before: dict[Hashable, Any] = {}  # what the sessions of the newest batch had
        self._older: dict[Hashable, Any] = {}  # and those of the batch before

    def begin_batch(self) -> None:
        """A batch begins: of the last but one every answer is known to be told, or was taken back."""
        if self._before or self._older:
            self._older, self._before = self._before, {}

    def begin(self, session: Hashable) -> Any:
        """The state for a session's next request."""
        if self._before or self._older:
            self._before.pop(session, None)
            self._older.pop(session, None)
        return self._states.get(session)

    def keep(self, session: Hashable, state: Any) -> None:
        """The session's request is answered, with this state."""
        before = self._states.get(session)
        if state is None and before is None:
            return
        self._before[session] = before
        self._set(session, state)

    def take_back(self, session: Hashable) -> None:
        """The session was told another outcome than the answer to its last request: its state is as before that."""
        for befores in (self._before, self._older):
            if session in befores:
                self._set(session, befores.pop(session))

    def forget(self, session: Hashable) -> None:
        """Drop a session's state."""
        for states in (self._states, self._before, self._older):
            states.pop(session, None)

    def _set(self, session: Hashable, state: Any) -> None:
        if state is None:
            self._states.pop(session, None)
        else:
            self._states[session] = state


class NumberedKeeping:
    """The states of sessions whose requests are answered far away: late, twice, or in another order.

    Each request has a number. An answer counts if its request is the session's newest, and has no outcome yet.
    """

    def __init__(self) -> None:
        self._states: dict[Hashable, Any] = {}
        self._open: dict[Hashable, int] = {}  # the number of each session's request that has no outcome
        self._last = 0

    def begin(self, session: Hashable) -> tuple[int, Any]:
        """The number of a session's next request, and the state for it; None is no state."""
        self._last += 1
        self._open[session] = self._last
        return self._last, self._states.get(session)

    def keep(self, session: Hashable, number: int, state: Any) -> bool:
        """The request is answered, and the session is told now; False: this answer is nobody's any more."""
        if self._open.get(session) != number:
            return False
        del self._open[session]
        if state is None:
            self._states.pop(session, None)
        else:
            self._states[session] = state
        return True

    def is_open(self, session: Hashable, number: int) -> bool:
        """Whether this request is the session's newest, and has no outcome."""
        return self._open.get(session) == number

    def take_back(self, session: Hashable) -> None:
        """The session was told another outcome than an answer: what its last request is answered changes nothing."""
        self._open.pop(session, None)

    def forget(self, session: Hashable) -> Any:
        """Drop a session's state; returns it."""
        self._open.pop(session, None)
        return self._states.pop(session, None)
