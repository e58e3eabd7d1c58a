"""A replica's side of the TCP carrier: a port on which edges that know its secret have groups answered.

What must stay true: of a peer that has not proved that it knows the secret, 64 bytes are read, for a few seconds at
most, and of such peers a few are there at a time: whoever comes then takes the place of the oldest.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from policyserve.core.arrays import Array
from policyserve.core.errors import WireError
from policyserve.core.log import Log
from policyserve.core.printable import error_text
from policyserve.ray import wire
from policyserve.ray.groups import OnAnswer, Parts
from policyserve.server.listener import end_if_silent

log = Log(__name__)

_PROVES_WITHIN_S = 5.0
_MOST_UNPROVEN = 64
_SILENT_S = 60.0  # a machine that answers nothing for so long is gone
_HIGH_WATER = 64 << 20  # bytes of answers that an edge has not read: then no more of its groups are

Answer = Callable[[bytes, Array, OnAnswer], None]


class Listener:
    """Answers the groups of edges. answer: Replica.answer. digest: of its spec. secret: what edges have to know.

    All methods: in the event loop's thread.
    """

    def __init__(self, answer: Answer, digest: str, secret: bytes) -> None:
        self.answer = answer
        self.digest = digest
        self.secret = secret
        self.is_leaving = False
        self._server: asyncio.Server | None = None
        self._unproven: dict[_EdgeConnection, None] = {}  # the oldest first
        self._edges: set[_EdgeConnection] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()

    async def open(self, host: str) -> int:
        """Listen on a free port of that address of this machine; the port."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _EdgeConnection(self), host, 0)
        return self._server.sockets[0].getsockname()[1]

    async def drain(self) -> None:
        """Ask edges for no more groups, and wait until they have their answers and have gone."""
        self.is_leaving = True
        if self._server is not None:
            self._server.close()
        for edge in self._edges:
            edge.say_goodbye()
        await self._nobody.wait()
        self.close()

    def close(self) -> None:
        """End all connections at once."""
        if self._server is not None:
            self._server.close()
        for connection in [*self._edges, *self._unproven]:
            connection.abort()

    def enter(self, connection: _EdgeConnection) -> None:
        """Somebody has connected."""
        self._unproven[connection] = None
        if len(self._unproven) > _MOST_UNPROVEN:
            next(iter(self._unproven)).abort()

    def welcome(self, connection: _EdgeConnection) -> None:
        """It knows the secret."""
        self._unproven.pop(connection, None)
        self._edges.add(connection)
        self._nobody.clear()

    def leave(self, connection: _EdgeConnection) -> None:
        """Its connection has ended."""
        self._unproven.pop(connection, None)
        self._edges.discard(connection)
        if not self._edges:
            self._nobody.set()


class _EdgeConnection(asyncio.BufferedProtocol):
    """One peer's connection: at first a stranger's."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._challenge = wire.MAGIC + os.urandom(wire.RANDOM_BYTES)
        self._claim = bytearray(wire.CLAIM_BYTES)
        self._claimed = 0  # bytes of it
        self._reader: wire.FrameReader | None = None  # once it has proved who it is
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._patience = asyncio.get_running_loop().call_later(_PROVES_WITHIN_S, self.abort)
        self._listener.enter(self)
        self._transport.write(self._challenge)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._transport = None
        self._listener.leave(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._claim)[self._claimed :] if self._reader is None else self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._reader is None:
            self._claimed += nbytes
            if self._claimed == len(self._claim):
                self._judge(bytes(self._claim))
            return
        try:
            frames = self._reader.advance(nbytes)
        except WireError as error:
            log.error("an edge sent what is no group, so its connection is closed: %s", error)
            self.abort()
            return
        for frame in frames:
            self._listener.answer(frame.message, frame.arrays, partial(self._tell, frame.number))

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def say_goodbye(self) -> None:
        """Ask for no more groups."""
        self._send(wire.GOODBYE, 0)

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _judge(self, claimed: bytes) -> None:
        listener = self._listener
        if self._transport is None or not wire.is_claim(claimed, listener.secret, self._challenge):
            log.debug("somebody who does not know the secret has connected")
            self.abort()
            return
        assert self._patience is not None
        self._patience.cancel()
        self._reader = wire.FrameReader()
        self._transport.write(wire.welcome(listener.secret, self._challenge, claimed, listener.digest))
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        end_if_silent(self._transport, _SILENT_S)
        listener.welcome(self)
        if listener.is_leaving:
            self.say_goodbye()

    def _tell(self, number: int, answer: Parts | Exception) -> None:
        if isinstance(answer, Exception):  # a bug: the edge tells it to whoever asked
            log.error("a group has no answer: %s", error_text(answer), cause=answer)
            self._send(wire.FAILED, number, error_text(answer).encode())
        else:
            message, arrays = answer
            self._send(wire.ANSWERS, number, message, (arrays.data,))

    def _send(self, kind: int, number: int, message: bytes = b"", arrays: Sequence[memoryview] = ()) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(wire.write_frame(kind, number, message, arrays))
