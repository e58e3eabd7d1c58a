"""Messages that come before the policy is ready: kept, up to a bound, until they can be read. Pure."""

from __future__ import annotations

from sys import getsizeof
from typing import NamedTuple

from policyserve.core.errors import Overloaded
from policyserve.core.messages import EncodedText, Message

MESSAGE_OVERHEAD = 1024  # bytes of a message or an answer that waits, besides its own
_MAX_BYTES = 1_000_000


class Early(NamedTuple):
    """A message, or the refusal that takes its turn, and when it arrived."""

    message: Message | EncodedText | Overloaded
    arrived_at: float


class EarlyMessages:
    """The messages of one session, in their order. The first may be of any size, the others a megabyte together."""

    def __init__(self) -> None:
        self._kept: list[Early] = []
        self._bytes = 0  # of those behind the first

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def held_bytes(self) -> int:
        """What they take."""
        return sum(_size_of(early.message) for early in self._kept)

    def keep(self, message: Message | EncodedText | Overloaded, now: float) -> tuple[Overloaded | None, int]:
        """Keep one; returns the refusal that is kept in its place, if there is no room, and the bytes that are held."""
        size = _size_of(message)
        if self._kept and not isinstance(message, Overloaded):
            self._bytes += len(message)
            if self._bytes > _MAX_BYTES:
                message = Overloaded("the policy is still loading, and more than a megabyte waits for it already")
        self._kept.append(Early(message, now))
        return message if isinstance(message, Overloaded) else None, size

    def take(self) -> list[Early]:
        """All of them, the oldest first; none are left."""
        taken, self._kept = self._kept, []
        return taken

    def clear(self) -> None:
        """Drop them: nobody will read them."""
        self._kept.clear()


def _size_of(message: Message | EncodedText | Overloaded) -> int:
    if isinstance(message, Overloaded):
        return MESSAGE_OVERHEAD
    return MESSAGE_OVERHEAD + (getsizeof(message) if isinstance(message, str) else len(message))
