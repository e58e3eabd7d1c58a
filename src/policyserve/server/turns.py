"""A peer's share of one turn of the event loop.

asyncio reads a socket once in a turn, uvloop up to 32 times in a row while there is more in it: of a peer that sends
faster than it is read, that is 16 MiB, and all others wait. Everything here is called in the event loop's thread.
"""

from __future__ import annotations

import asyncio

_LARGE = 1 << 14  # bytes, from which a read may have left more in the socket
_READ_BYTES = 1 << 16  # what a read counts at least: each costs its time, too
_PEER_BYTES = 1 << 20  # of one peer in one turn
_TURN_BYTES = 1 << 23  # of all; from there on a peer has one read


class LoopTurns:
    """Tells the event loop's turns apart and counts what is read in each."""

    def __init__(self) -> None:
        self._number = 0
        self._bytes = 0
        self._is_asked = False  # in this turn

    @property
    def is_spent(self) -> bool:
        """Whether so much was read in this turn that no peer is to have more than one read."""
        return self._bytes >= _TURN_BYTES

    def count(self, size: int) -> int:
        """Count so many bytes; returns the number of the turn that is."""
        if not self._is_asked:
            self._is_asked = True
            asyncio.get_running_loop().call_soon(self._end)
        self._bytes += size
        return self._number

    def _end(self) -> None:
        self._is_asked = False
        self._bytes = 0
        self._number += 1


class Share:
    """Counts what one peer's reads take of a turn."""

    def __init__(self, turns: LoopTurns) -> None:
        self._turns = turns
        self._turn = -1
        self._bytes = 0

    def is_spent(self, count: int) -> bool:
        """Count a read of `count` bytes; whether it is the last that the peer has in this turn."""
        if count < _LARGE:
            return False
        size = max(count, _READ_BYTES)
        turn = self._turns.count(size)
        if turn != self._turn:
            self._turn, self._bytes = turn, 0
        self._bytes += size
        return self._bytes >= _PEER_BYTES or self._turns.is_spent
