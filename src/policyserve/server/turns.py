"""A peer's share of one turn of the event loop.

asyncio reads a socket once in a turn, uvloop up to 32 times in a row while there is more in it: of a peer that sends
faster than it is read, that is 16 MiB, and all others wait. Everything here is called in the event loop's thread.
"""

from __future__ import annotations

import asyncio

_LARGE = 1 << 14  # bytes, from which a read may have left more in the socket
_PIECE = 1 << 18  # bytes; a read counts as many pieces as it has, whole or not
_MOST_PIECES = 4  # of one peer in one turn


class LoopTurns:
    """Numbers the event loop's turns, as far as somebody asks for their number."""

    def __init__(self) -> None:
        self._number = 0
        self._is_asked = False  # in this turn

    def number(self) -> int:
        """The number of the turn that is."""
        if not self._is_asked:
            self._is_asked = True
            asyncio.get_running_loop().call_soon(self._end)
        return self._number

    def _end(self) -> None:
        self._is_asked = False
        self._number += 1


class Share:
    """Counts what one peer's reads take of a turn."""

    def __init__(self, turns: LoopTurns) -> None:
        self._turns = turns
        self._turn = -1
        self._pieces = 0

    def is_spent(self, count: int) -> bool:
        """Count a read of `count` bytes; whether it is the last that the peer has in this turn."""
        if count < _LARGE:
            return False
        turn = self._turns.number()
        if turn != self._turn:
            self._turn, self._pieces = turn, 0
        self._pieces += 1 + (count - 1) // _PIECE
        return self._pieces >= _MOST_PIECES
