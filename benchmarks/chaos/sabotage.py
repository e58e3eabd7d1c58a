"""What happens to the server itself: a policy that hangs, breaks or dies, and signals; in a drawn order."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter

from policyserve import AsyncClient
from policyserve.core.errors import PolicyserveError

from .asks import Ask, Fault
from .clients import PATIENCE_S, Books, url_of
from .ledger import Ledger
from .rig import KEY, OTHER_KEY, Rig

_HANG_FOREVER_S = 3600.0
_LONGEST_PAUSE_S = 65.0  # between faults: a policy that lived for a minute is replaced at once when it breaks
_EVENTS = 5.0  # of them in a short run


class Saboteur:
    """Does one thing after another until it is told to stop. has_child: the policy has a process of its own."""

    def __init__(self, rig: Rig, ledger: Ledger, dice: random.Random, seconds: float, client: int) -> None:
        self.done: Counter[str] = Counter()
        self._rig = rig
        self._ledger = ledger
        self._dice = dice
        self._client = client
        self._pause_s = min(seconds / _EVENTS, _LONGEST_PAUSE_S)
        self._has_child = rig.settings["isolate"] == "process"

    async def work(self, end: float) -> None:
        """end: on time.monotonic's clock; the last quarter of a pause before it stays quiet."""
        deeds = ["hang", "poison", *(("die", "kill") if self._has_child else ())]
        self._dice.shuffle(deeds)
        for number in range(10_000):
            await asyncio.sleep(max(0.0, min(self._pause_s, end - time.monotonic())))
            if time.monotonic() >= end - self._pause_s / 4:
                return
            deed = deeds[number % len(deeds)]
            self.done[deed] += 1
            await self._do(deed, number)
            self._reload(number)

    @property
    def broken(self) -> int:
        """How often it broke the policy."""
        return sum(count for deed, count in self.done.items() if deed != "SIGHUP")

    async def _do(self, deed: str, number: int) -> None:
        if deed == "kill":
            self._rig.kill_child()
        elif deed == "hang":
            # A thread cannot be killed: its call has to come back for the soak to end as it began.
            seconds = _HANG_FOREVER_S if self._has_child else 1.5 * self._rig.settings["request_timeout_s"]
            await self._ask(Ask(self._client, number, 0, Fault.HANG, seconds))
        else:
            await self._ask(Ask(self._client, number, 0, Fault.POISON if deed == "poison" else Fault.DIE))

    async def _ask(self, ask: Ask) -> None:
        books = Books(self._ledger, "saboteur")
        peer = AsyncClient(url_of(self._rig.place, "openpi"), api_key=KEY, timeout_s=PATIENCE_S)
        books.sent()
        books.account["sessions"] += 1
        try:
            books.answered(ask, await peer.infer(ask.observation()))
        except PolicyserveError as error:
            books.failed(ask, error)
        finally:
            await peer.close()

    def _reload(self, number: int) -> None:
        """New keys, the one in use among them; every second time the file is one that must not be taken."""
        self.done["SIGHUP"] += 1
        self._rig.write_keys(more="short" if number % 2 else OTHER_KEY)
        self._rig.send(signal.SIGHUP)
