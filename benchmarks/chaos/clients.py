"""Clients that mean well: our own two and plain `websockets` peers, in all dialects.

Each request is booked once: answered, refused, or closed (its connection ended before, by whoever's doing).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from policyserve import AsyncClient, Client
from policyserve.core.dialect import opening_of
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, PolicyserveError, RemoteError, WireError
from policyserve.core.messages import Reply
from policyserve.dialects import by_name

from .asks import Ask, Fault, draw_for
from .ledger import Account, Ledger
from .rig import KEY, Place

DIALECTS = ("openpi", "wall_x", "vibe_rl")
# And those whose clients say more than observations.
ALL_DIALECTS = (
    *(*DIALECTS, "roboarena", "dreamzero", "behavior1k", "starvla", "vllm_omni", "vla_eval"),
    *("molmospaces", "xpolicylab"),
)
_KNOWN_BY_KEYS = ("behavior1k", "molmospaces")  # of their simulators, which the soak has not
PATIENCE_S = 30.0  # every request must have ended by then: the server's own time-outs are far shorter
_MAY_HAPPEN = {"overloaded", "deadline_exceeded", "policy_lost", "not_ready", "1013"}  # to a good request
_MUST_HAPPEN = {"policy_failed", "bad_action", "1011"}  # to one that asks for a fault, or the above


def url_of(place: Place, dialect: str) -> str:
    """For our own clients."""
    if place.uds is not None:
        return f"ws+unix://{place.uds}:/{dialect}"
    return f"ws://127.0.0.1:{place.port}/{dialect}"


class Books:
    """Books the ends of one client's requests."""

    def __init__(self, ledger: Ledger, kind: str) -> None:
        self._ledger = ledger
        self._kind = kind
        self.account: Account = ledger.account(kind)

    def sent(self) -> None:
        self.account["sent"] += 1

    def answered(self, ask: Ask, reply: Reply) -> None:
        """An answer came: its own, or somebody else's."""
        self.account["answered"] += 1
        complaint = ask.complaint(reply.actions)
        if complaint:
            self.wrong("crossed", f"{ask}: {complaint}")

    def refused(self, ask: Ask, reason: str) -> None:
        """The server refused it. reason: begins with the code."""
        self.account["refused"] += 1
        code = reason.partition(":")[0][:40]
        self._ledger.refusals[code] += 1
        if code not in (_MAY_HAPPEN if ask.is_good else _MAY_HAPPEN | _MUST_HAPPEN):
            self.wrong("unexpected", f"{ask} was refused: {reason}")

    def closed(self, count: int = 1) -> None:
        self.account["closed"] += count

    def lost(self, ask: Ask) -> None:
        """Nothing came, and the connection is there."""
        self.wrong("lost", f"{ask} was lost")

    def wrong(self, what: str, told: str) -> None:
        self.account[what] += 1
        self._ledger.note(f"{self._kind}: {told}")

    def failed(self, ask: Ask, error: PolicyserveError) -> None:
        """What one of our own clients raised."""
        if isinstance(error, ConnectionLost):
            self.closed()
        elif isinstance(error, DeadlineExceeded):
            self.lost(ask)
        elif isinstance(error, RemoteError):
            self.refused(ask, f"{error.close_code}: {error}" if error.close_code else str(error))
        else:
            self.answered_wrongly(ask, error)

    def answered_wrongly(self, ask: Ask, error: BaseException) -> None:
        """An answer that cannot be read."""
        self.account["answered"] += 1
        self.wrong("unexpected", f"{ask}: {type(error).__name__}: {error}")


async def live_async(place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
    """One session of an AsyncClient: some requests, one at a time, and a close."""
    dialect = dice.choice(ALL_DIALECTS)
    books = Books(ledger, f"AsyncClient, {dialect}")
    asks = [draw_for(dialect, dice, client, session, number) for number in range(dice.randrange(1, 30))]
    peer = AsyncClient(url_of(place, dialect), dialect=dialect, api_key=KEY, timeout_s=PATIENCE_S)
    try:
        for ask in asks:
            books.sent()
            try:
                books.answered(ask, await peer.infer(ask.observation()))
            except PolicyserveError as error:
                books.failed(ask, error)
        books.account["sessions"] += peer.sessions_opened
    finally:
        await peer.close()


def live_blocking(place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
    """The same of a Client, in a thread."""
    dialect = dice.choice(ALL_DIALECTS)
    books = Books(ledger, f"Client, {dialect}")
    asks = [draw_for(dialect, dice, client, session, number) for number in range(dice.randrange(1, 30))]
    peer = Client(url_of(place, dialect), dialect=dialect, api_key=KEY, timeout_s=PATIENCE_S)
    try:
        for ask in asks:
            books.sent()
            try:
                books.answered(ask, peer.infer(ask.observation()))
            except PolicyserveError as error:
                books.failed(ask, error)
        books.account["sessions"] += peer.sessions_opened
    finally:
        peer.close()


def in_thread(threads: Executor) -> Callable[..., Awaitable[None]]:
    """live_blocking() for a program with an event loop."""

    async def live(place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
        private = Ledger()  # a thread's own: counters are no place to meet
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(threads, live_blocking, place, private, dice, client, session)
        finally:
            ledger.add(private)

    return live


async def open_websocket(place: Place, path: str, **options: Any) -> ClientConnection:
    """A plain peer, which knows nothing of us."""
    settings: dict[str, Any] = {
        "compression": None,
        "max_size": None,
        "ping_interval": None,
        "close_timeout": 5,
        "additional_headers": {"Authorization": f"Bearer {KEY}"},
        **options,
    }
    if place.uds is not None:
        return await unix_connect(place.uds, f"ws://localhost{path}", **settings)
    return await connect(f"ws://127.0.0.1:{place.port}{path}", proxy=None, **settings)


async def live_plain(place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
    """One session of a plain peer: bursts, fragments, pings, pauses, and one of several ends."""
    dialect = dice.choice(ALL_DIALECTS)
    books = Books(ledger, f"websockets, {dialect}")
    # A vibe_rl client belongs on its path: on `/` a loaded machine makes it late, and it is greeted.
    is_known = by_name(dialect).greets and dialect not in _KNOWN_BY_KEYS
    path = "/" if dice.random() < 0.2 and is_known else f"/{dialect}"
    plan = [_Burst(dialect, dice, client, session, number * 100) for number in range(dice.randrange(1, 8))]
    end = dice.choice(("close", "close", "close", "reset", "close early"))
    try:
        peer = await asyncio.wait_for(open_websocket(place, path), PATIENCE_S)
    except (OSError, InvalidHandshake, EOFError) as error:
        books.wrong("unexpected", f"not connected: {error!r}")
        return
    books.account["sessions"] += 1
    talk = _Talk(peer, dialect, books)
    try:
        for place_of, burst in enumerate(plan):
            is_last = place_of == len(plan) - 1
            await talk.send(burst)
            if is_last and end == "reset":
                peer.transport.abort()
            elif is_last and end == "close early":
                break
            await talk.collect(burst.pause_s)
            if talk.is_over:
                break
    finally:
        await peer.close()
        talk.give_up()


class _Burst:
    """Requests that are sent before an answer is read."""

    def __init__(self, dialect: str, dice: random.Random, client: int, session: int, first: int) -> None:
        count = dice.choice((1, 1, 1, 2, 5)) if dice.random() < 0.97 else 80
        self.asks = [draw_for(dialect, dice, client, session, first + number) for number in range(count)]
        if count == 80:
            self.asks = [replace(ask, fault=Fault.NONE, seconds=0.0, picture_bytes=0) for ask in self.asks]
        self.cuts = [dice.randrange(1, 5) if dice.random() < 0.2 else 1 for _ in self.asks]
        self.pings = [dice.random() < 0.1 for _ in self.asks]
        self.pause_s = dice.uniform(0.05, 1.0) if dice.random() < 0.05 else 0.0


class _Talk:
    """One session of a plain peer; `_open` are the requests that have no end yet."""

    def __init__(self, peer: ClientConnection, dialect: str, books: Books) -> None:
        self.is_over = False
        self._peer = peer
        self._wire = by_name(dialect)
        self._books = books
        self._open: deque[Ask] = deque()
        self._opening = opening_of(self._wire)
        self._is_greeted = not self._wire.greets and not self._opening

    async def send(self, burst: _Burst) -> None:
        try:
            await self._greet()
            for ask, cuts, is_ping in zip(burst.asks, burst.cuts, burst.pings, strict=True):
                frame = self._wire.write_request(ask.observation())
                assert isinstance(frame, bytes)
                self._books.sent()
                self._open.append(ask)
                step = len(frame) // cuts + 1
                pieces = [frame[start : start + step] for start in range(0, len(frame), step)]
                await asyncio.wait_for(self._peer.send(frame if cuts == 1 else pieces), PATIENCE_S)
                if is_ping:
                    await asyncio.wait_for(self._peer.ping(), PATIENCE_S)
        except ConnectionClosed:
            return  # what the server said before is still to be read
        except asyncio.TimeoutError:
            self._books.lost(self._open.pop())
            self.is_over = True

    async def collect(self, pause_s: float = 0.0) -> None:
        """Read an answer for every request that waits for one."""
        await asyncio.sleep(pause_s)
        try:
            while self._open and not self.is_over:
                self._book(await asyncio.wait_for(self._peer.recv(), PATIENCE_S))
        except ConnectionClosed:
            self._end()
        except asyncio.TimeoutError:
            self._books.lost(self._open.popleft())
            self.is_over = True

    def give_up(self) -> None:
        """The connection is over by our own doing."""
        self._books.closed(len(self._open))
        self._open.clear()

    async def _greet(self) -> None:
        if not self._is_greeted:
            for message in self._opening:
                await asyncio.wait_for(self._peer.send(message), PATIENCE_S)
            self._wire.read_greeting(await asyncio.wait_for(self._peer.recv(), PATIENCE_S))
            self._is_greeted = True

    def _book(self, frame: bytes | str) -> None:
        ask = self._open.popleft()
        try:
            self._books.answered(ask, self._wire.read_reply(frame))
        except RemoteError as error:
            self._books.refused(ask, str(error))
        except WireError as error:
            self._books.answered_wrongly(ask, error)

    def _end(self) -> None:
        """The server has closed: where a dialect has no other word for it, that is the oldest request's refusal."""
        self.is_over = True
        received = self._peer.protocol.close_rcvd
        if self._open and received is not None and received.code in (1008, 1011, 1013) and not self._wire.greets:
            self._books.refused(self._open.popleft(), f"{received.code}: {received.reason}")
        self.give_up()
