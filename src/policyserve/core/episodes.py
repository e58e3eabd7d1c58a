"""The episodes of one session: what a policy remembers belongs to one, and so do the rows of its last chunk. Pure.

Most dialects have one episode in a connection, which ends with it. Others say when one begins or ends, or have several
in one connection at a time, each by a name.
"""

from __future__ import annotations

from typing import Any

from policyserve.core.errors import Overloaded
from policyserve.core.policy import ActionChunk

_MOST_EPISODES = 256  # of one connection: simulators that share one are some tens
_LEFT_BEHIND_S = 60.0  # many clients never say that an episode is over: one that asked nothing for so long gives way
LONGEST_NAME = 256


class ChunkRows:
    """Hands out the rows of a chunk one by one. chunk_size: how many of a chunk are used; None: all of them.

    keeps_axis: whether a row keeps the axis of steps, then of length one.
    """

    __slots__ = ("_chunk", "_chunk_size", "_keeps_axis", "_next")

    def __init__(self, chunk_size: int | None, keeps_axis: bool) -> None:
        self._chunk_size = chunk_size
        self._keeps_axis = keeps_axis
        self._chunk: ActionChunk | None = None
        self._next = 0

    def fill(self, chunk: ActionChunk) -> ActionChunk:
        """Take a chunk, (steps, *action), in place of the one before, and hand out its first row."""
        self._chunk, self._next = chunk, 0
        first = self.take()
        assert first is not None, "a chunk has a row"
        return first

    def take(self) -> ActionChunk | None:
        """The next row; None: the policy has to be asked."""
        if self._chunk is None:
            return None
        row, self._next = self._next, self._next + 1
        actions = self._chunk.actions
        chunk = self._chunk._replace(actions=actions[row : row + 1] if self._keeps_axis else actions[row])
        most = len(actions) if self._chunk_size is None else min(len(actions), self._chunk_size)
        if self._next >= most:
            self._chunk = None
        return chunk

    def drop(self) -> None:
        """Hand out no more of it."""
        self._chunk = None


class Episode:
    """One episode. number: a session's, from 0 on. rows: what is left of its last chunk; None: chunks go out whole.

    held: a request that waits until the one before it is answered, where the newest alone is asked.
    """

    __slots__ = ("_is_over", "asked_at", "held", "number", "rows", "unanswered")

    def __init__(self, number: int, rows: ChunkRows | None) -> None:
        self.number = number
        self.rows = rows
        self.unanswered = 0  # requests
        self.held: Any = None
        self.asked_at = 0.0  # seconds, the session's clock
        self._is_over = False

    def take_row(self) -> ActionChunk | None:
        """The next row of its last chunk; None: the policy has to be asked."""
        return None if self.rows is None else self.rows.take()

    def end(self) -> bool:
        """Nothing is asked for it any more; returns whether all that was asked is answered."""
        self._is_over = True
        return not self.unanswered

    def settle(self) -> bool:
        """A request has its answer; returns whether it was the last one of an episode that is over."""
        self.unanswered -= 1
        return self._is_over and not self.unanswered


class Episodes:
    """The episodes of a session, by name."""

    __slots__ = ("_by_name", "_made", "_open")

    def __init__(self) -> None:
        self._by_name: dict[str, Episode] = {}
        self._open: dict[int, Episode] = {}  # those too that are over, while the policy may remember something
        self._made = 0

    @property
    def numbers(self) -> list[int]:
        """Those that a policy may remember something of."""
        return list(self._open)

    @property
    def names(self) -> list[str]:
        """Those that have begun and are not over."""
        return list(self._by_name)

    def of(self, name: str, rows: ChunkRows | None) -> Episode:
        """The episode of a request; a new one, with these rows, where there is none. Raises Overloaded."""
        found = self._by_name.get(name)
        if found is None:
            if len(self._open) >= _MOST_EPISODES or len(name) > LONGEST_NAME:
                most = f"at most {_MOST_EPISODES} episodes at a time, of names of {LONGEST_NAME} letters"
                raise Overloaded(f"a connection has {most}: end one first")
            found = self._by_name[name] = self._open[self._made] = Episode(self._made, rows)
            self._made += 1
        return found

    def left_behind(self, name: str, now: float) -> int | None:
        """End and forget the episode that gives way to a new one of this name, and return its number.

        None where there is room, or all are in use.
        """
        if name in self._by_name or len(self._open) < _MOST_EPISODES or len(name) > LONGEST_NAME:
            return None
        idle = [(one.asked_at, key) for key, one in self._by_name.items() if not one.unanswered]
        asked_at, oldest = min(idle, default=(now, ""))
        if now - asked_at < _LEFT_BEHIND_S:
            return None
        found = self._by_name.pop(oldest)
        self.forgotten(found)
        return found.number

    def end(self, name: str) -> Episode | None:
        """Have the next request of this name begin one. Returns the one that is over, if the policy can forget it."""
        found = self._by_name.pop(name, None)
        return found if found is not None and found.end() else None

    def forgotten(self, episode: Episode) -> None:
        """The policy remembers nothing of it."""
        self._open.pop(episode.number, None)

    def drop_rows(self, name: str | None = None) -> None:
        """Hand out no more rows of one episode's chunk, or of any: another policy answers, or a request failed."""
        found = [self._by_name.get(name)] if name is not None else self._open.values()
        for episode in found:
            if episode is not None and episode.rows is not None:
                episode.rows.drop()
