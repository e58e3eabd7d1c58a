"""Clients that ask a server at the same time: one in this thread, or many in an event loop.

A fleet opens its connections once and is then driven slice by slice. A client whose request fails goes on after a
pause, with a new connection where the old one ended.
"""

from __future__ import annotations

import asyncio
import selectors
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from policyserve.bench.load import Load, Watch
from policyserve.bench.measures import Pace
from policyserve.bench.raw_fleet import RawFleet
from policyserve.bench.tally import Tally
from policyserve.client.aio import AsyncClient
from policyserve.client.sync import Client
from policyserve.core.errors import PolicyserveError

_AFTER_ERROR_S = 0.05
_CONNECTING = 32  # clients that connect at the same time
_MOST_SELECTED = 900  # sockets: select() takes numbers below 1024


class Fleet(Protocol):
    """Connected clients. One thread drives it."""

    def drive(self, tally: Tally, seconds: float) -> None:
        """Send requests for so long, wait for their answers, and note them while they come."""
        ...

    def close(self) -> None: ...


def open_fleet(load: Load) -> Fleet:
    """Connect the clients; raises what connecting raises: ConnectionLost, DeadlineExceeded, RemoteError."""
    if load.is_raw:
        return RawFleet(load)
    return Single(load) if load.clients == 1 else Many(load)


class Single:
    """One `Client`, in the caller's thread."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._client = Client(load.url, **load.options)
        self._client.connect()

    def drive(self, tally: Tally, seconds: float) -> None:
        with Watch(tally) as start:
            (pace,) = self._load.paces(start, seconds)
            while (due := pace.next_due(time.perf_counter())) is not None:
                if (wait := due - time.perf_counter()) > 0:
                    time.sleep(wait)
                self._ask(tally, due)
            tally.unsent += pace.unsent

    def _ask(self, tally: Tally, due: float) -> None:
        sent = time.perf_counter()
        try:
            reply = self._client.infer(self._load.observation)
            tally.answered(due, sent, time.perf_counter(), reply.timing)
        except PolicyserveError as error:
            tally.failed(error)
            time.sleep(_AFTER_ERROR_S)

    def close(self) -> None:
        self._client.close()


class Many:
    """`AsyncClient`s in an event loop of their own."""

    def __init__(self, load: Load) -> None:
        self._load = load
        # asyncio's default rounds every wait up to a millisecond, by which requests of an open loop would be late.
        is_precise = load.rate_hz is not None and load.clients <= _MOST_SELECTED
        self._loop = asyncio.SelectorEventLoop(selectors.SelectSelector() if is_precise else None)
        self._clients = [AsyncClient(load.url, **load.options) for _ in range(load.clients)]
        try:
            self._run(self._connect())
        except BaseException:
            self.close()
            raise

    def drive(self, tally: Tally, seconds: float) -> None:
        with Watch(tally) as start:
            self._run(self._drive(tally, self._load.paces(start, seconds)))

    def close(self) -> None:
        self._loop.run_until_complete(self._close())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it; Ctrl-C cancels it, and is raised once everything in the loop has come to rest."""
        task = self._loop.create_task(work)
        with _on_interrupt(lambda: self._loop.call_soon_threadsafe(task.cancel)):
            try:
                self._loop.run_until_complete(task)
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None

    async def _connect(self) -> None:
        for start in range(0, len(self._clients), _CONNECTING):
            await asyncio.gather(*(client.connect() for client in self._clients[start : start + _CONNECTING]))

    async def _drive(self, tally: Tally, paces: Sequence[Pace]) -> None:
        pairs = zip(self._clients, paces, strict=True)
        await asyncio.gather(*(self._ask(client, pace, tally) for client, pace in pairs))
        tally.unsent += sum(pace.unsent for pace in paces)

    async def _ask(self, client: AsyncClient, pace: Pace, tally: Tally) -> None:
        while (due := pace.next_due(time.perf_counter())) is not None:
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            sent = time.perf_counter()
            try:
                reply = await client.infer(self._load.observation)
                tally.answered(due, sent, time.perf_counter(), reply.timing)
            except PolicyserveError as error:
                tally.failed(error)
                await asyncio.sleep(_AFTER_ERROR_S)

    async def _close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients), return_exceptions=True)


@contextmanager
def _on_interrupt(call: Callable[[], object]) -> Iterator[None]:
    """Have Ctrl-C call this; where signals are not this thread's to handle, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda _number, _frame: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
