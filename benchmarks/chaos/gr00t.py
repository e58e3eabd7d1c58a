"""Clients of GR00T's port, over ZeroMQ: as N1.5 and as N1.6 asks, one by one or several at once; and peers of no use.

ZeroMQ tells nobody that a connection has ended, and makes another one. Here a monitor tells, and there is no other one.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import msgpack
import numpy as np

from policyserve.core.errors import RemoteError, WireError
from policyserve.dialects import by_name
from policyserve.dialects.gr00t.spellings import NPY

from .asks import Ask, draw
from .clients import PATIENCE_S, Books
from .ledger import Ledger
from .misdeeds import complaint_of
from .raw import RawPeer
from .rig import KEY, OTHER_KEY, Place

_WIRE = by_name("gr00t")
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03REQ"
_NO_USE = 0.15  # of the visits


def has_zeromq() -> bool:
    """Whether there can be clients of GR00T's here."""
    return find_spec("zmq") is not None


async def live_gr00t(place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
    """One connection: a client that means well, or a peer that is of no use."""
    if dice.random() < _NO_USE:
        name, deed = dice.choice((("no ZeroMQ", _no_zeromq), ("a ZeroMQ message without end", _message_without_end)))
        ledger.misdeed(name, await complaint_of(deed(place, dice)))
        return
    version = dice.choice(("N1.5", "N1.6"))
    books = Books(ledger, f"ZeroMQ, GR00T {version}")
    bursts = [dice.choice((1, 1, 1, 2, 5)) for _ in range(dice.randrange(1, 12))]
    asks = [[draw(dice, client, session, first * 100 + n) for n in range(count)] for first, count in enumerate(bursts)]
    talk = _Talk(place, books, version)
    books.account["sessions"] += 1
    try:
        for number, burst in enumerate(asks):
            await talk.send(burst, is_stranger=dice.random() < 0.02)
            if number == len(asks) - 1 and dice.random() < 0.3:
                break  # it goes with requests under way
            if not await talk.collect():
                break
    finally:
        talk.close()


class _Talk:
    """One connection of a DEALER, whose answers come in order."""

    def __init__(self, place: Place, books: Books, version: str) -> None:
        import zmq
        import zmq.asyncio

        self._books = books
        self._version = version
        self._waiting: deque[Ask | None] = deque()  # None: nothing to book
        self._socket: Any = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._monitor: Any = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._socket.connect(f"tcp://127.0.0.1:{place.gr00t}")
        self._ended = asyncio.ensure_future(self._monitor.recv_multipart())

    async def send(self, asks: list[Ask], is_stranger: bool) -> None:
        """Ask; before it, with a key that is none, what is refused and ends nothing."""
        if is_stranger:
            self._waiting.append(None)
            await self._put({"endpoint": "ping", "api_token": OTHER_KEY[::-1]})
        for ask in asks:
            self._books.sent()
            self._waiting.append(ask)
            seen = ask.observation()
            if self._version == "N1.5":
                data: Any = {f"state.{name}": value[None] for name, value in seen.items()}
            else:
                state = {name: value[None, None] for name, value in seen.items()}
                data = {"observation": {"state": state}, "options": None}
            await self._put({"endpoint": "get_action", "data": data, "api_token": KEY})

    async def collect(self) -> bool:
        """Read an answer for every request; False if the connection has ended, or an answer never came."""
        while self._waiting:
            receiving = asyncio.ensure_future(self._socket.recv_multipart())
            done, _ = await asyncio.wait({receiving, self._ended}, timeout=PATIENCE_S, return_when="FIRST_COMPLETED")
            if receiving not in done:
                receiving.cancel()
                if not done and (ask := self._waiting.popleft()) is not None:
                    self._books.lost(ask)
                return False
            self._book(receiving.result()[-1], self._waiting.popleft())
        return True

    def close(self) -> None:
        """End it; what waits has no answer by our own doing, or since the connection is gone."""
        self._books.closed(sum(ask is not None for ask in self._waiting))
        self._ended.cancel()
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    async def _put(self, message: dict[str, Any]) -> None:
        packed = msgpack.packb(message, default=NPY.write)
        await self._socket.send_multipart([b"", packed])

    def _book(self, answer: bytes, ask: Ask | None) -> None:
        try:
            reply = _WIRE.read_reply(memoryview(bytearray(answer)))
        except RemoteError as error:
            if ask is not None:
                self._books.refused(ask, str(error))
            elif "Unauthorized" not in str(error):
                self._books.wrong("unexpected", f"a stranger was told {error}")
        except WireError as error:
            if ask is not None:
                self._books.answered_wrongly(ask, error)
        else:
            if ask is None:
                self._books.wrong("unexpected", "a stranger was answered")
                return
            # N1.5's have no axes of length one, and a client of ours reads them as another shape.
            self._books.answered(ask, replace(reply, actions=np.ravel(reply.actions)))


async def _no_zeromq(place: Place, dice: random.Random) -> str:
    """Bytes that are no greeting; the server ends it, or it goes by itself."""
    said = dice.choice((dice.randbytes(200), b"GET / HTTP/1.1\r\n\r\n", b"\xff", _GREETING[:40]))
    await RawPeer(*await asyncio.open_connection("127.0.0.1", place.gr00t)).say_and_leave(said)
    return ""


async def _message_without_end(place: Place, dice: random.Random) -> str:
    """A message that says it is long, of which there is a part; then it vanishes."""
    peer = RawPeer(*await asyncio.open_connection("127.0.0.1", place.gr00t))
    size = dice.choice((1 << 10, 1 << 20, 1 << 40, (1 << 64) - 1))
    await peer.send(_GREETING + _READY + b"\x01\x00\x02" + size.to_bytes(8, "big") + bytes(dice.randrange(1, 1000)))
    peer.reset() if dice.random() < 0.5 else await peer.close()
    return ""
