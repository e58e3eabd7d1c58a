"""Which of a client's messages each message of its server answers, as far as their dialect tells. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from policyserve.core.dialect import ConversingDialect, Dialect, mark_of
from policyserve.core.errors import WireError
from policyserve.core.messages import Control, Message

_MOST_WAITING = 1024  # messages of one session; of more than these the oldest gets no answer any more


class _Asked(NamedTuple):
    """A message that is to be answered. number: 0 of one that asked for no actions."""

    number: int
    mark: Any


class Matching:
    """One session's messages, numbered from 1 on, and those that wait for their answers. asked: messages so far."""

    def __init__(self) -> None:
        self.asked = 0
        self._waiting: deque[_Asked] = deque(maxlen=_MOST_WAITING)

    def ask(self, dialect: Dialect, message: Message) -> None:
        """The client sent a message."""
        self.asked += 1
        control = control_in(dialect, message)
        if control is None or _is_answered(dialect, control):
            self._waiting.append(_Asked(self.asked if control is None else 0, mark_of(dialect, message)))

    def answer(self, dialect: Dialect, message: Message) -> int:
        """The number of the request that a server's message answers; 0 for what answers none."""
        mark = None if not self._waiting else mark_of(dialect, message)
        found = next((one for one in self._waiting if mark is not None and one.mark == mark), None)
        if found is None and self._waiting:
            found = self._waiting[0]
        if found is None:
            return 0
        self._waiting.remove(found)
        return found.number


def control_in(dialect: Dialect | None, message: Message) -> Control | None:
    """What a client said without asking for actions, a hello for example; None for a request."""
    if not isinstance(dialect, ConversingDialect):
        return None
    try:
        heard = dialect.read_message(message)
    except Exception:  # a stranger's bytes, and maybe another package's dialect
        return None
    return heard if isinstance(heard, Control) else None


def _is_answered(dialect: Dialect, control: Control) -> bool:
    assert isinstance(dialect, ConversingDialect), "it has controls"
    try:
        return dialect.answer_control(control, {}) is not None
    except WireError:  # which its client is told
        return True
