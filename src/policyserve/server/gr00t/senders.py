"""Which connection of ZeroMQ's a message came by: the one that has its descriptor now, or one before, which is gone.

What a client sent before it left is read when another connection may have its descriptor already, and would be taken
for that one's. ROUTER gives each connection a name, which its messages bear, and counts these up.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["its own", "another's", "gone"]

_SIZE = 5  # bytes of a name that ROUTER gave: a zero, and a number that may begin anywhere and goes round
_ROUND = 1 << 32


class Senders:
    """The newest connection that was heard by each descriptor."""

    def __init__(self) -> None:
        self._newest: dict[int, bytes] = {}

    def judge(self, number: int, name: bytes, own: bytes) -> Verdict:
        """Whose a message is: the connection's that has descriptor `number`, another's in its place, or a lost one's.

        name: of the message. own: of the connection; empty: it was not heard yet. After "another's" the connection is
        to be replaced by one of this name.
        """
        newest = self._newest.get(number, b"")
        if name == own:
            return "its own"
        if newest and _is_given(name) and _is_given(newest) and not _is_newer(name, newest):
            return "gone"
        self._newest[number] = name
        return "another's" if own else "its own"


def _is_given(name: bytes) -> bool:
    """Whether ROUTER gave this name; a client may have one of its own."""
    return len(name) == _SIZE and name[0] == 0


def _is_newer(name: bytes, than: bytes) -> bool:
    return 0 < (int.from_bytes(name[1:], "big") - int.from_bytes(than[1:], "big")) % _ROUND < _ROUND // 2
