"""A bound on what all peers together make the server hold: messages on their way in, unanswered ones, unread answers.

Pure. Only messages beyond a read's size are counted, as they come in: a small request costs nothing here, and how many
of those there may be is bounded by the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol


class Holder(Protocol):
    """A peer, as the budget sees it."""

    def held_bytes(self) -> int:
        """What it makes the server hold now."""
        ...

    def give_up(self) -> None:
        """End it: it holds most, and there is no room."""
        ...


class Budget:
    """Counts upwards; only when the bound is reached is it found out what is still held, and who holds most of it."""

    def __init__(self, max_bytes: int, holders: Callable[[], Iterable[Holder]]) -> None:
        self._max_bytes = max_bytes
        self._holders = holders
        self._counted = 0

    def grow(self, count: int) -> None:
        """`count` bytes more are held. Beyond the bound those who hold most are given up, until the rest fits."""
        self._counted += count
        if self._counted > self._max_bytes:
            self._relieve()

    def _relieve(self) -> None:
        held = sorted(((holder.held_bytes(), index, holder) for index, holder in enumerate(self._holders())))
        self._counted = sum(count for count, _, _ in held)
        while self._counted > self._max_bytes and held:
            count, _, holder = held.pop()
            self._counted -= count
            holder.give_up()


class Holding:
    """The large messages that one peer makes the server hold: those that came in, whole or not, and have no answer."""

    def __init__(self) -> None:
        self._arrived: deque[tuple[int, int]] = deque()  # which message, counted from 1, and bytes

    def grow(self, number: int, count: int) -> None:
        """`count` bytes of the peer's message `number` came in."""
        before = self._arrived.pop()[1] if self._arrived and self._arrived[-1][0] == number else 0
        self._arrived.append((number, before + count))

    def held_bytes(self, answered: int) -> int:
        """What is held still, now that so many messages are answered."""
        while self._arrived and self._arrived[0][0] <= answered:
            self._arrived.popleft()
        return sum(count for _, count in self._arrived)

    def clear(self) -> None:
        """Nothing is held any more."""
        self._arrived.clear()
