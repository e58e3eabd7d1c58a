"""An edge's connection to one replica, on which its calls are under way at the same time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple, cast

from policyserve.core.errors import DeadlineExceeded, NotReady, PolicyLost, WireError
from policyserve.core.log import Log
from policyserve.engine.isolated.codec import Packed
from policyserve.ray import wire
from policyserve.ray.groups import Parts
from policyserve.server.listener import end_if_silent

log = Log(__name__)

_GREETS_WITHIN_S = 5.0
_SILENT_S = 20.0  # a machine that answers nothing for so long is gone
_MOST_UNSENT = 64 << 20  # bytes: to a replica that has left so much unread nothing more is sent


class Place(NamedTuple):
    """Where a replica listens. name: no other replica ever has it. secret: what it asks edges to know."""

    name: str
    host: str
    port: int
    secret: bytes


class Link(asyncio.BufferedProtocol):
    """A connection to a replica. on_change: told when it ends, or the replica asks for no more groups.

    digest: of the spec that the replica serves. is_silent: a call timed out, and the replica has said nothing since.
    """

    def __init__(self, place: Place, on_change: Callable[[Link], None]) -> None:
        self.place = place
        self.digest = ""
        self.is_silent = False
        self._on_change = on_change
        self._is_leaving = False
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, asyncio.Future[Parts]] = {}
        self._numbers = 0
        self._greeting = bytearray(wire.CHALLENGE_BYTES)  # what the replica says first, and then of its answer
        self._greeted = 0  # bytes of it
        self._challenge = b""
        self._own = os.urandom(wire.RANDOM_BYTES)
        self._reader: wire.FrameReader | None = None  # once it has proved who it is
        self._proved: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Connect and greet; raises OSError, asyncio.TimeoutError or WireError where no such replica listens."""
        try:
            await asyncio.wait_for(self._open(), _GREETS_WITHIN_S)
        except BaseException:
            self.abort()
            raise

    @property
    def is_open(self) -> bool:
        """Whether a group can be sent."""
        transport = self._transport
        return (
            self._reader is not None
            and not self._is_leaving
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() < _MOST_UNSENT
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or never began."""
        return self._transport is None

    @property
    def load(self) -> int:
        """Calls that have no answer yet."""
        return len(self._calls)

    async def send(self, group: Packed, timeout_s: float) -> Parts:
        """See Carrier; while it is_open."""
        if self._transport is None:
            raise NotReady("the connection to a replica has ended")
        self._numbers += 1
        number, loop = self._numbers, asyncio.get_running_loop()
        answer = self._calls[number] = loop.create_future()
        alarm = loop.call_later(timeout_s, self._time_out, answer, timeout_s)
        self._transport.writelines(wire.write_frame(wire.GROUP, number, group.data, group.pieces()))
        try:
            return await answer
        finally:
            alarm.cancel()
            self._calls.pop(number, None)
            self._leave()

    def abort(self) -> None:
        """End it at once; what is under way is lost."""
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._proved.done():
            self._proved.set_exception(ConnectionError("it ended before the greeting did"))
            self._proved.exception()  # asyncio complains of one that nobody asks for
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(PolicyLost(f"a replica was lost at this request: {exc or 'it closed'}"))
        self._on_change(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._greeting)[self._greeted :] if self._reader is None else self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._reader is not None:
                for frame in self._reader.advance(nbytes):
                    self._take(frame)
                return
            self._greeted += nbytes
            if self._greeted == len(self._greeting):
                self._greet(bytes(self._greeting))
        except WireError as error:
            log.warning("%s:%d is no replica of ours: %s", self.place.host, self.place.port, error)
            if not self._proved.done():
                self._proved.set_exception(error)
            self.abort()

    async def _open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, self.place.host, self.place.port)
        await self._proved

    def _greet(self, said: bytes) -> None:
        assert self._transport is not None
        if not self._challenge:
            self._challenge = said
            self._greeting, self._greeted = bytearray(wire.WELCOME_BYTES), 0
            self._transport.write(wire.claim(self.place.secret, said, self._own))
            return
        self.digest = wire.read_welcome(said, self.place.secret, self._challenge, self._own)
        self._reader = wire.FrameReader()
        end_if_silent(self._transport, _SILENT_S)
        if not self._proved.done():
            self._proved.set_result(None)

    def _take(self, frame: wire.Frame) -> None:
        self.is_silent = False
        if frame.kind == wire.GOODBYE:
            self._is_leaving = True
            self._on_change(self)
            self._leave()
            return
        answer = self._calls.get(frame.number)
        if answer is None or answer.done():
            return  # it comes late: the group was sent to another replica, or nobody waits for it
        if frame.kind == wire.ANSWERS:
            answer.set_result((frame.message, frame.arrays))
        else:
            answer.set_exception(RuntimeError(f"a replica failed: {frame.message.decode(errors='replace')}"))

    def _time_out(self, answer: asyncio.Future[Parts], timeout_s: float) -> None:
        if not answer.done():
            self.is_silent = True
            answer.set_exception(DeadlineExceeded(f"no replica answered within {timeout_s:g} s"))

    def _leave(self) -> None:
        """Close the connection to a replica that leaves, once it has answered all."""
        if self._is_leaving and not self._calls and self._transport is not None:
            self._transport.close()
