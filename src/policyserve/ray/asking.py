"""Asks Ray from an event loop, in threads, which may hang with a cluster that does; and how a cluster is, seldom.

What must stay true: a server asks Serve's one controller so rarely that it has time for a thousand servers.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from policyserve.core.log import Log
from policyserve.core.printable import error_text
from policyserve.ray import cluster

log = Log(__name__)

SOON_S = 1.0
AWAY_S = 5.0  # a cluster that does not answer for so long is away
SELDOM_S = 8.0  # while nothing changes
_SPREAD = 0.25  # of a pause, up or down: edges that began together would ask together for ever
_MOST_TOLD = 200  # characters of an error of Ray's
# Ray's library ends a process whose GCS was away for so long, from a thread of its own that nothing here can hold up.
# A GCS that comes back may have given up all other nodes, which end then; a driver without its node goes on in vain.
_WHAT_FOLLOWS = (
    "requests are answered while replicas are reached; if its head node is gone, Ray ends this server and the replicas "
    "after RAY_gcs_rpc_server_reconnect_timeout_s, 60 s if nobody set it; if it comes back and has given up this node, "
    "begin the node and this server anew"
)

T = TypeVar("T")
# Told what is deployed; returns whether it waits for a change, and wants to be told soon.
Look: TypeAlias = Callable[[Sequence[cluster.Deployed]], bool]


class Watch:
    """Asks how the applications of a cluster are, for all engines of a server: seldom, and soon after a change.

    ask: waits for Ray, in a thread. soon_s: between two questions, at least. pause_s: to the next one; each answer that
    is as the one before doubles it, up to SELDOM_S. is_away: the last question had no answer within away_s.
    """

    def __init__(
        self,
        ask: Callable[[], Sequence[cluster.Deployed]] = cluster.status,
        soon_s: float = SOON_S,
        away_s: float = AWAY_S,
    ) -> None:
        self.is_away = False
        self.pause_s = self._soon_s = soon_s
        self._away_s = away_s
        self._ask = ask
        self._looks: list[Look] = []
        self._soon = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    def add(self, look: Look) -> None:
        """Tell it what is deployed, from soon on."""
        self._looks.append(look)
        self.soon()
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._keep_asking())

    async def remove(self, look: Look) -> None:
        """Tell it nothing more."""
        if look in self._looks:
            self._looks.remove(look)
        if not self._looks and self._asking is not None:
            asking, self._asking = self._asking, None
            asking.cancel()
            await asyncio.wait([asking])

    def soon(self) -> None:
        """Something has happened: ask as soon as may be."""
        self._soon.set()

    async def _keep_asking(self) -> None:
        before: Sequence[cluster.Deployed] = ()
        while True:
            await asyncio.sleep(self._soon_s)
            more_s = (self.pause_s - self._soon_s) * random.uniform(1 - _SPREAD, 1 + _SPREAD)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._soon.wait(), more_s)
            self._soon.clear()
            found = before
            try:
                found = await self._asked()
                if any([look(found) for look in list(self._looks)]):  # each is told
                    self.soon()
            except Exception as error:  # the controller is away, or the cluster is: sessions go on meanwhile
                log.debug("the cluster does not tell how it is: %s", error)
            self.pause_s = min(2 * self.pause_s, SELDOM_S) if found == before else self._soon_s
            before = found

    async def _asked(self) -> Sequence[cluster.Deployed]:
        """What the cluster says. The log tells when it says nothing, which Ray may take a minute to find out."""
        alarm = asyncio.get_running_loop().call_later(self._away_s, self._note_away, f"for {self._away_s:g} s")
        try:
            found = await in_thread(self._ask)
        except Exception as error:  # Ray's
            self._note_away(f"({error_text(error)[:_MOST_TOLD]})")
            raise
        finally:
            alarm.cancel()
        if self.is_away:
            log.warning("the cluster answers again")
        self.is_away = False
        return found

    def _note_away(self, told: str) -> None:
        if not self.is_away:
            log.warning("the cluster does not answer %s; %s", told, _WHAT_FOLLOWS)
        self.is_away = True


async def in_thread(function: Callable[[], T], *, stays: bool = False) -> T:
    """What a function returns or raises that waits for Ray, called in a thread that keeps nobody from ending.

    stays: the thread lives on, since what Ray starts ends with the thread that started it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(outcome)
        else:
            done.set_exception(error)

    def run() -> None:
        outcome: Any = None
        told: BaseException | None = None
        try:
            outcome = function()
        except Exception as error:  # Ray's, or the cluster's
            told = error
        try:
            loop.call_soon_threadsafe(settle, outcome, told)
        except RuntimeError:
            log.debug("the cluster answered after the server's end")
        if stays and told is None:
            threading.Event().wait()

    threading.Thread(target=run, name="asking Ray", daemon=True).start()
    return await done
