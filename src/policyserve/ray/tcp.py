"""Carries groups over TCP connections of our own: the edge knows each replica, and chooses.

What must stay true: a group goes to a replica that has proved who it is, and to one that was silent at its last call
only while there is no other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from policyserve.core.errors import DeadlineExceeded, NotReady, PolicyLost, WireError
from policyserve.core.log import Log
from policyserve.engine.isolated.codec import Packed
from policyserve.ray.groups import Parts
from policyserve.ray.link import Link, Place

log = Log(__name__)

_LOOK_EVERY_S = 6.0, 10.0  # spread, since edges that began together would look together for ever
_RETRY_S = 1.0  # while no replica is connected
_LOOK_AGAIN_S = 0.1  # after a replica has left, or was lost

Find = Callable[[], Awaitable[Sequence[Place]]]


class Links:
    """An edge's connections to all replicas of an application. find: brings where they listen; may raise."""

    def __init__(self, find: Find) -> None:
        self.open: list[Link] = []  # the one that had the last group is the last
        self._find = find
        self._known: dict[str, Link] = {}  # by the replica's name; those that are being opened, too
        self._opening: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._has_one = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def start(self, patience_s: float) -> None:
        """Connect and follow who comes and goes; raises NotReady if nobody is reached within patience_s."""
        self._following = asyncio.get_running_loop().create_task(self._follow())
        try:
            await asyncio.wait_for(self._has_one.wait(), patience_s)
        except asyncio.TimeoutError:
            told = f"the ports of {len(self._known)} replicas" if self._known else "where replicas listen"
            cure = "let edges reach the ports of the nodes, or go through Ray: --carrier handle"
            raise NotReady(f"{told} could not be reached within {patience_s:g} s; {cure}") from None

    def look_soon(self) -> None:
        """There may be another replica."""
        self._changed.set()

    async def close(self) -> None:
        """End all of them."""
        tasks = [task for task in (self._following, *self._opening) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for link in [*self._known.values()]:
            link.abort()

    def choose(self, digest: str) -> Link:
        """The replica that has the fewest of this edge's calls, of those that serve that spec; raises NotReady."""
        found: Link | None = None
        best: tuple[bool, bool, int] | None = None
        for link in self.open:
            if link.is_open:
                rank = (link.digest != digest, link.is_silent, link.load)
                if best is None or rank < best:
                    found, best = link, rank
        if found is None:
            raise NotReady("no replica is connected")
        self.open.remove(found)
        self.open.append(found)  # of those with as few calls each has its turn
        return found

    async def _follow(self) -> None:
        while True:
            try:
                self._meet(await self._find())
            except Exception as error:  # the cluster is away: connections go on meanwhile
                log.debug("the cluster does not tell where its replicas listen: %s", error)
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), random.uniform(*_LOOK_EVERY_S) if self.open else _RETRY_S)
                await asyncio.sleep(_LOOK_AGAIN_S)
            except asyncio.TimeoutError:
                continue

    def _meet(self, places: Sequence[Place]) -> None:
        """Connect to those that are new, and end what goes to one that is no more."""
        there = {place.name: place for place in places}
        for name, link in [*self._known.items()]:
            if name not in there:
                link.abort()
        for place in places:
            if place.name not in self._known:
                link = self._known[place.name] = Link(place, self._note)
                task = asyncio.get_running_loop().create_task(self._connect(link))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _connect(self, link: Link) -> None:
        try:
            await link.open()
        except (OSError, asyncio.TimeoutError, WireError) as error:
            log.debug("a replica is not reached at %s:%d: %s", link.place.host, link.place.port, error)
            self._known.pop(link.place.name, None)
        else:
            self.open.append(link)
            self._has_one.set()

    def _note(self, link: Link) -> None:
        """It has ended, or its replica leaves: another one may be there already."""
        if link in self.open:
            self.open.remove(link)
            self._changed.set()
        if link.is_over and self._known.get(link.place.name) is link:
            del self._known[link.place.name]


class PinnedCarrier:
    """A Carrier to one replica, as long as that is connected and answers in time: for sessions that it keeps."""

    def __init__(self, links: Links, digest: str) -> None:
        self._links = links
        self._digest = digest
        self._link: Link | None = None

    async def send(self, group: Packed, timeout_s: float) -> Parts:
        """See Carrier."""
        link = self._link
        if link is None or not link.is_open:
            link = self._link = self._links.choose(self._digest)
        try:
            return await link.send(group, timeout_s)
        except (DeadlineExceeded, PolicyLost):
            if self._link is link:
                self._link = None
            raise


class TcpCarrier:
    """A Carrier over Links, for groups of sessions that were told the spec with that digest."""

    def __init__(self, links: Links, digest: str) -> None:
        self._links = links
        self._digest = digest

    async def send(self, group: Packed, timeout_s: float) -> Parts:
        """See Carrier."""
        return await self._links.choose(self._digest).send(group, timeout_s)
