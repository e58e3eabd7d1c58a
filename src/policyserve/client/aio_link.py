"""One connection in an event loop: it moves bytes between a transport and a Wire, without a task of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, cast

from policyserve.client.address import Address
from policyserve.client.aio_connecting import connect
from policyserve.client.connection import Silence, Wire
from policyserve.client.handshake import Handshake, connect_error
from policyserve.client.options import ClientOptions
from policyserve.client.sockets import PIECES, Poll, behind, left_s, readable, widen
from policyserve.core.errors import DeadlineExceeded, WireError
from policyserve.core.messages import Message, Part

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

if TYPE_CHECKING:
    import ssl

    from policyserve.client.grpc_link import AsyncGrpcLink
    from policyserve.client.http_link import AsyncHttpLink
    from policyserve.client.zmq_link import AsyncZmqLink

    AnyLink: TypeAlias = "Link | AsyncZmqLink | AsyncHttpLink | AsyncGrpcLink"

_PONG_S = 1.0
_WAITED_BYTES = 1 << 16
_SCRATCH_BYTES = 1 << 14  # of a handshake
_TURNS = 3  # turns of an event loop, after which it has read what its sockets had


class Link(asyncio.BufferedProtocol):
    """One WebSocket, used by one task at a time. After an exception of any call but close() it must be cut."""

    def __init__(
        self, address: Address, handshake: Handshake, timeout_s: float, dead_after_s: float | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._timeout_s = timeout_s
        self._silence = Silence(dead_after_s)
        self._handshake: Handshake | None = handshake  # until it is through
        self._refusal: Exception | None = None
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._wire = Wire(None if address.unix_path is not None else os.urandom)
        self._transport: asyncio.Transport | None = None
        self._is_readable: Poll = lambda wait_ms: False
        self._fileno = -1  # of a Unix socket
        self._is_sending = False  # a frame is half sent: no other may come between
        self._is_paused = False  # nothing is read, since more came than anybody asked for
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0  # of the wait
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # What a client calls

    async def shake_hands(self, deadline: float) -> None:
        """Become a WebSocket; raises what Handshake raises, or TimeoutError."""
        assert self._handshake is not None
        self._write(self._handshake.request)
        while self._handshake is not None and self._refusal is None:
            await self._wait(deadline)
        if self._refusal is not None:
            raise self._refusal

    async def ask(self, parts: list[Part], deadline: float, doubt: str = "") -> Message:
        """Send one message and wait for the next that comes; raises what receive() raises.

        doubt: what the error of a time-out adds.
        """
        await self.send(parts, deadline)
        message = await self.receive(deadline, doubt)
        self._silence.is_known = True
        return message

    async def send(self, parts: list[Part], deadline: float) -> None:
        """Send one message; raises DeadlineExceeded. What else goes wrong, receive() raises."""
        self._is_sending = True
        try:
            pieces = self._wire.request(parts)
            if self._is_paused:
                self._pace()
            if isinstance(pieces, list):
                await self._send_pieces(pieces, deadline)
            else:
                for piece in pieces:
                    self._write(piece)
                    await self._sent(deadline)
        except asyncio.TimeoutError as error:
            raise DeadlineExceeded(f"{self._address.url} took no request within {self._timeout_s:g} s") from error
        self._is_sending = False
        self._flush()

    async def receive(self, deadline: float, doubt: str = "") -> Message:
        """Wait for a message; raises DeadlineExceeded, or how the connection ended."""
        self._wire.is_awaited = True
        if self._is_paused:
            self._pace()
        silence = self._silence
        silence.begin(time.monotonic())
        while (message := self._wire.take()) is None:
            try:
                await self._wait(min(deadline, silence.until))
            except asyncio.TimeoutError as error:
                now = time.monotonic()
                if now >= deadline:
                    what = f"no answer from {self._address.url} within {self._timeout_s:g} s{doubt}"
                    raise DeadlineExceeded(what) from error
                if silence.is_death(now):
                    self._wire.on_lost(silence.told)
                else:
                    self._write(self._wire.ping())
        return message

    async def is_usable(self, may_close: bool, deadline: float) -> bool:
        """Whether the connection is still open, once all that came since the last answer has been read.

        Raises WireError if a message came, or began to come, that nothing had asked for.
        """
        if may_close:
            await self._await_pong(min(deadline, time.monotonic() + _PONG_S))
        if self._is_readable(0):  # bytes came while this program kept the loop from reading
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        if not self._wire.is_quiet:
            raise WireError("", "one answer to each request", "another message")
        return self._wire.end is None

    async def close(self, deadline: float) -> None:
        """Send a close frame, and wait for the server's."""
        try:
            self._write(self._wire.close())
            self._pace()  # what comes is dropped from now on
            if self._transport is not None and self._transport.can_write_eof():
                with suppress(OSError):  # the server has ended it already
                    self._transport.write_eof()
            while self._wire.end is None:
                await self._wait(deadline)
        except asyncio.TimeoutError:
            pass
        finally:
            self.cut()

    def cut(self) -> None:
        """End it at once: an answer that comes late must not be taken for the next request's."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._transport.set_write_buffer_limits(high=0)  # a piece that is not sent whole is waited for
        connected = transport.get_extra_info("socket")
        if connected is not None:
            self._is_readable = readable(connected)
            if self._address.unix_path is not None:
                self._fileno = connected.fileno()
                widen(connected)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._scratch) if self._handshake is not None else self._wire.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._handshake is not None:
            self._shake(bytes(self._scratch[:nbytes]))
        else:
            self._wire.advance(nbytes)
            self._silence.begin(time.monotonic())
            if self._wire.unsent:
                self._flush()
        is_waited_for = self._wake()
        if (self._is_sending or not is_waited_for) and self._wire.has_unasked:
            self._pace()

    def eof_received(self) -> bool:
        if self._handshake is not None:
            self._shake(b"")
        else:
            self._wire.advance(0)
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._handshake is not None and self._refusal is None:
            self._shake(b"")
        if self._transport is not None:
            self._transport.abort()  # it is over; Python 3.10's TLS transport does not know that by itself
        self._transport = None
        self._wire.on_lost(str(exc) if exc else "no close frame")
        self._wake()

    def resume_writing(self) -> None:
        self._flush()
        self._wake()

    # Below

    def _shake(self, data: bytes) -> None:
        assert self._handshake is not None
        try:
            behind = self._handshake.feed(data)
        except Exception as refusal:  # of whatever kind: the call that waits raises it
            self._refusal = refusal
            return
        if behind is not None:
            self._handshake = None
            self._wire.feed(behind)

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _send_pieces(self, pieces: list[Part], deadline: float) -> None:
        """Send all of them over a Unix socket. The transport, which would copy them, gets a part to wait by only."""
        left = pieces
        while left and self._transport is not None and self._wire.end is None:
            with suppress(OSError):  # the transport waits, or finds out what is wrong
                left = behind(left, os.writev(self._fileno, left[:PIECES]))
            if left:
                part = memoryview(left[0])[:_WAITED_BYTES]
                self._write(part)
                left = behind(left, len(part))
                await self._sent(deadline)

    async def _sent(self, deadline: float) -> None:
        """Wait until the socket has taken all: what was written may be overwritten then."""
        while self._transport is not None and self._transport.get_write_buffer_size() and self._wire.end is None:
            await self._wait(deadline)

    def _flush(self) -> None:
        """Send a pong, unless the server has not taken what was sent before: a newer one may then take its place."""
        wire, transport = self._wire, self._transport
        if not wire.unsent or self._is_sending or transport is None or transport.get_write_buffer_size():
            return
        unsent, wire.unsent = wire.unsent, b""
        self._write(unsent)

    def _pace(self) -> None:
        """Read nothing more while more came than anybody asked for, so that a server cannot fill the memory."""
        is_paused = self._wire.has_unasked
        if self._transport is None or self._transport.is_closing() or is_paused == self._is_paused:
            return
        self._is_paused = is_paused
        if is_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    async def _await_pong(self, deadline: float) -> None:
        wire = self._wire
        before = wire.pongs
        self._write(wire.ping())
        with suppress(asyncio.TimeoutError):  # a server that answers no pings, or is busy: it has not closed
            while wire.pongs == before and wire.end is None and wire.is_quiet:
                await self._wait(deadline)

    async def _wait(self, deadline: float) -> None:
        """Wait until anything happens; raises asyncio.TimeoutError, after the deadline at once."""
        if time.monotonic() >= deadline:  # no timer rings for a waiter that something wakes in each turn
            raise asyncio.TimeoutError
        self._deadline = deadline
        if self._timer is None or deadline < self._timer_at:
            self._set_timer()
        waiter = self._waiter = self.loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> bool:
        """End the wait; False: nobody waits, or what came before has ended it."""
        if self._waiter is None or self._waiter.done():
            return False
        self._waiter.set_result(None)
        return True

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self.loop.call_later(left_s(self._deadline), self._ring)

    def _ring(self) -> None:
        """End the wait that is too late.

        One timer serves many waits, so that a call costs none: if the wait it was set for is over, it does nothing, or
        is set again for the wait of now.
        """
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if time.monotonic() >= self._deadline:
            self._waiter.set_exception(asyncio.TimeoutError())
        else:
            self._set_timer()


async def open_link(options: ClientOptions, deadline: float) -> AnyLink:
    """Connect and shake hands; raises NotYet, RemoteError (ConnectionLost among them) or DeadlineExceeded."""
    address = options.address
    if address.is_grpc:
        from policyserve.client.grpc_link import open_async_grpc  # needs an extra

        return await open_async_grpc(options, deadline)
    if address.is_http:
        from policyserve.client.http_link import open_async_http  # few clients need it

        return await open_async_http(options, deadline)
    if address.is_zmq:
        from policyserve.client.zmq_link import open_async_zmq  # needs an extra

        return await open_async_zmq(options, deadline)
    handshake = Handshake(address, options.api_key, asks_images=options.may_encode)
    link = Link(address, handshake, options.timeout_s, options.dead_after_s)
    try:
        async with timeout(left_s(deadline)):
            await _connect(link, address, options.ssl_context)
            await link.shake_hands(deadline)
    except BaseException as error:
        link.cut()
        # With a number it is the system's own. The clock does not tell: uvloop's timers may be a little early.
        if isinstance(error, asyncio.TimeoutError) and getattr(error, "errno", None) is None:
            raise DeadlineExceeded(f"no handshake with {address.url} within {options.timeout_s:g} s") from error
        if isinstance(error, (OSError, UnicodeError)):  # UnicodeError: a host's name that is none
            raise connect_error(address, error) from error
        raise
    return link


async def _connect(link: Link, address: Address, tls: ssl.SSLContext | None) -> None:
    if address.unix_path is not None:
        await link.loop.create_unix_connection(lambda: link, address.unix_path)
        return
    context = None
    if address.is_secure:
        import ssl

        context = tls or ssl.create_default_context()
    connected = await connect(address.host, address.port)
    host = address.host if context is not None else None
    await link.loop.create_connection(lambda: link, sock=connected, ssl=context, server_hostname=host)
