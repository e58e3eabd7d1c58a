"""The last acts: SIGTERM while many ask, which must lose nothing that was accepted; SIGKILL, and a next server.

The next one has its key from the environment, and gets SIGHUP.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from policyserve import AsyncClient
from policyserve.core.errors import ConnectionLost, PolicyserveError, RemoteError
from policyserve.dialects import by_name

from .asks import Ask
from .clients import DIALECTS, PATIENCE_S, Books, open_websocket, url_of
from .ledger import Account, Ledger
from .rig import KEY, Place, Rig

_WARM = 10  # answers that each client has before the signal
_AHEAD = 4  # requests that a plain client has under way
_HANGUPS = 3


@dataclass(frozen=True)
class Drained:
    """How SIGTERM went. accepted: requests that the server took from these clients; told: those of them that ended."""

    exit_code: int
    seconds: float
    accepted: int
    told: int
    complaints: list[str]

    @property
    def is_fine(self) -> bool:
        """Whether nothing that was accepted was lost."""
        return self.exit_code == 0 and self.accepted == self.told and not self.complaints


@dataclass(frozen=True)
class Revived:
    """How SIGKILL went. again: clients that the next server has answered."""

    clients: int
    again: int
    longest_s: float  # without an answer

    @property
    def is_fine(self) -> bool:
        """Whether every client was answered again."""
        return self.again == self.clients


@dataclass(frozen=True)
class HungUp:
    """How SIGHUP went, where no file can be read again. answered: requests of one session, the last behind them all."""

    signals: int
    answered: int
    sessions: int

    @property
    def is_fine(self) -> bool:
        """Whether the server stayed, and its session did."""
        return self.answered == self.signals + 1 and self.sessions == 1


class Progress:
    """How many of the clients have got how far."""

    def __init__(self) -> None:
        self._answers: dict[int, int] = {}
        self._changed = asyncio.Event()

    def note(self, client: int) -> None:
        self._answers[client] = self._answers.get(client, 0) + 1
        self._changed.set()

    async def until(self, clients: int, answers: int) -> None:
        """Wait until so many clients have so many answers."""
        while sum(count >= answers for count in self._answers.values()) < clients:
            self._changed.clear()
            await self._changed.wait()


async def terminate_under_load(rig: Rig, ledger: Ledger, clients: int) -> Drained:
    """Send SIGTERM while every client has requests under way; the server has no other sessions."""
    await rig.ask("last act")
    progress = Progress()
    kinds: list[Callable[..., Any]] = [_ask_on, _ask_ahead]
    before = _told(ledger.total)
    asking = [asyncio.create_task(kinds[client % 2](rig.place, ledger, client, progress)) for client in range(clients)]
    await asyncio.wait_for(progress.until(clients, _WARM), 2 * PATIENCE_S)
    started_at = time.monotonic()
    rig.send(signal.SIGTERM)
    code, said = await rig.end()
    seconds = time.monotonic() - started_at
    await asyncio.wait_for(asyncio.gather(*asking), PATIENCE_S)
    return Drained(code, seconds, said.get("accepted", -1), _told(ledger.total) - before, said.get("complaints", []))


def _told(account: Account) -> int:
    return account["answered"] + account["refused"]


async def _ask_on(place: Place, ledger: Ledger, client: int, progress: Progress) -> None:
    """One request after another until the server is gone."""
    dialect = DIALECTS[client // 2 % 3]
    books = Books(ledger, f"AsyncClient, {dialect}, until SIGTERM")
    peer = AsyncClient(url_of(place, dialect), dialect=dialect, api_key=KEY, timeout_s=PATIENCE_S, retry_for_s=0)
    await peer.reset()  # connect
    books.account["sessions"] += 1
    number = 0
    while True:
        number += 1
        ask = Ask(client, 0, number, picture_bytes=300 * (number % 3))
        books.sent()
        try:
            books.answered(ask, await peer.infer(ask.observation()))
        except ConnectionLost:
            books.closed()
            return
        except PolicyserveError as error:
            books.failed(ask, error)
        progress.note(client)


async def _ask_ahead(place: Place, ledger: Ledger, client: int, progress: Progress) -> None:
    """Several requests under way, always, until the server closes."""
    dialect = DIALECTS[client // 2 % 3]
    books = Books(ledger, f"websockets, {dialect}, until SIGTERM")
    wire = by_name(dialect)
    most = _AHEAD if wire.greets else 1  # on a busy machine more are refused, which ends a session of vibe_rl
    waiting: deque[Ask] = deque()
    number = 0
    peer: ClientConnection = await open_websocket(place, f"/{dialect}")
    books.account["sessions"] += 1
    try:
        if wire.greets:
            await peer.recv()
        is_open = True
        while True:
            while is_open and len(waiting) < most:
                number += 1
                waiting.append(Ask(client, 0, number))
                books.sent()
                try:
                    await peer.send(wire.write_request(waiting[-1].observation()))
                except ConnectionClosed:
                    is_open = False  # what the server said before is still to be read
            frame = await asyncio.wait_for(peer.recv(), PATIENCE_S)
            try:
                books.answered(waiting.popleft(), wire.read_reply(frame))
            except RemoteError as error:
                books.refused(Ask(client, 0, 0), str(error))
            progress.note(client)
    except ConnectionClosed:
        books.closed(len(waiting))
    finally:
        await peer.close()


async def kill_under_load(rig: Rig, next_rig: Rig, ledger: Ledger, clients: int) -> Revived:
    """SIGKILL a server that works, start the next one in its place, and wait until all clients are answered again."""
    progress, again = Progress(), Progress()
    revived = asyncio.Event()
    asking = [
        asyncio.create_task(_ask_through(rig.place, ledger, client, (progress, again), revived))
        for client in range(clients)
    ]
    await asyncio.wait_for(progress.until(clients, _WARM), 2 * PATIENCE_S)
    await rig.kill()
    revived.set()
    await next_rig.start()
    pauses = await asyncio.wait_for(asyncio.gather(*asking), 2 * PATIENCE_S)
    return Revived(clients, sum(pause is not None for pause in pauses), max(pause or 0.0 for pause in pauses))


async def _ask_through(
    place: Place, ledger: Ledger, client: int, progress: tuple[Progress, Progress], is_killed: asyncio.Event
) -> float | None:
    """Ask until there are answers of the second server; returns the longest time without one."""
    dialect = DIALECTS[client % 3]
    books = Books(ledger, f"AsyncClient, {dialect}, through SIGKILL")
    before, again = progress
    answers_again, number, longest_s, answered_at = 0, 0, 0.0, time.monotonic()
    async with AsyncClient(
        url_of(place, dialect), dialect=dialect, api_key=KEY, timeout_s=PATIENCE_S, retry_for_s=PATIENCE_S
    ) as peer:
        while answers_again < _WARM:
            number += 1
            ask = Ask(client, 1, number)
            books.sent()
            try:
                books.answered(ask, await peer.infer(ask.observation()))
            except PolicyserveError as error:
                books.failed(ask, error)
                continue
            now = time.monotonic()
            longest_s, answered_at = max(longest_s, now - answered_at), now
            before.note(client)
            if is_killed.is_set() and peer.sessions_opened > 1:
                again.note(client)
                answers_again += 1
        books.account["sessions"] += peer.sessions_opened
    return longest_s if answers_again else None


async def hang_up(rig: Rig, ledger: Ledger) -> HungUp:
    """SIGHUP, again and again, to a server whose key comes from the environment and that has a session open."""
    books = Books(ledger, "AsyncClient, openpi, through SIGHUP")
    answered = 0
    async with AsyncClient(url_of(rig.place, "openpi"), api_key=KEY, timeout_s=PATIENCE_S, retry_for_s=0) as peer:
        for number in range(_HANGUPS + 1):
            ask = Ask(0, 2, number)
            books.sent()
            try:
                books.answered(ask, await peer.infer(ask.observation()))
                answered += 1
                if number < _HANGUPS:
                    rig.send(signal.SIGHUP)
                    await rig.ask()
            except PolicyserveError as error:
                books.failed(ask, error)
                break
            except (RuntimeError, ProcessLookupError, ConnectionError):  # the server has ended
                break
        books.account["sessions"] += peer.sessions_opened
        return HungUp(_HANGUPS, answered, peer.sessions_opened)
