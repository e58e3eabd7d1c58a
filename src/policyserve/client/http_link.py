"""One connection to a server that is asked by `POST /act`, for both clients: HTTP/1.1, kept open between requests.

A connection has no greeting and no handshake. An answer is a ReplyBody, whose status its dialect looks at.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11

from policyserve.client.address import Address
from policyserve.client.options import ClientOptions
from policyserve.client.reaching import aio_reach, reach
from policyserve.client.sockets import Stream, left_s
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, WireError
from policyserve.core.messages import Part
from policyserve.dialects.packing import joined
from policyserve.dialects.rest.bodies import ReplyBody

if TYPE_CHECKING:
    import socket

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

_MOST_BYTES = 1 << 30  # of an answer
_RECEIVED_BYTES = 1 << 16  # at a time


class Exchange:
    """Requests and their answers on one connection, as bytes. Pure. is_over: no other request can follow."""

    def __init__(self, address: Address, api_key: str | None) -> None:
        asked = urlsplit(address.http_url)
        self._target = f"{asked.path}?{asked.query}" if asked.query else asked.path
        self._headers = [("Host", asked.netloc.rpartition("@")[2]), ("Content-Type", "application/json")]
        key = api_key or asked.password
        if key:
            self._headers.append(("Authorization", f"Bearer {key}"))
        self._parser = h11.Connection(h11.CLIENT)
        self._head: h11.Response | None = None
        self._body = bytearray()
        self.is_over = False

    def request(self, body: bytes) -> bytes:
        """The bytes that ask; the answer before was whole."""
        headers = [*self._headers, ("Content-Length", str(len(body)))]
        events = [h11.Request(method="POST", target=self._target, headers=headers), h11.Data(body), h11.EndOfMessage()]
        return b"".join(self._parser.send(event) or b"" for event in events)

    def feed(self, data: bytes) -> ReplyBody | None:
        """Bytes came, none: the server has ended its side. Gives the answer once it is whole.

        Raises ConnectionLost where none can come any more, WireError for what is no HTTP.
        """
        try:
            self._parser.receive_data(data)
            while (event := self._parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    self._head = event
                elif isinstance(event, h11.Data):
                    self._take(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    return self._end()
                elif isinstance(event, h11.ConnectionClosed):
                    break
        except h11.RemoteProtocolError:
            self.is_over = True
            if data or (self._head is None and self._parser.trailing_data[0]):
                raise WireError("", "an answer of HTTP/1.1", "none", "another program may have this port") from None
        if not data:
            self.is_over = True
            raise ConnectionLost("the connection ended without an answer")
        return None

    def _take(self, data: bytes | bytearray) -> None:
        if len(self._body) + len(data) > _MOST_BYTES:
            self.is_over = True
            raise WireError("", f"an answer of at most {_MOST_BYTES} bytes", "more")
        self._body += data

    def _end(self) -> ReplyBody:
        head, self._head = self._head, None
        assert head is not None
        body, self._body = self._body, bytearray()
        if self._parser.our_state is h11.DONE and self._parser.their_state is h11.DONE:
            self._parser.start_next_cycle()
        else:
            self.is_over = True
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        return ReplyBody.of_bytes(body, head.status_code, headers)


class _Common:
    """What both clients' links have in common."""

    def __init__(self, options: ClientOptions) -> None:
        self._address = options.address
        self._timeout_s = options.timeout_s
        self._exchange = Exchange(options.address, options.api_key)

    def _no_answer(self, doubt: str = "") -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {self._address.url} within {self._timeout_s:g} s{doubt}")


class HttpLink(_Common):
    """A Client's connection. After an exception of any call but close() it must be cut."""

    def __init__(self, options: ClientOptions, connected: socket.socket) -> None:
        super().__init__(options)
        self._stream = Stream(connected, busy_poll_s=options.busy_poll_us / 1e6)
        self._space = memoryview(bytearray(_RECEIVED_BYTES))

    def ask(self, parts: list[Part], deadline: float, doubt: str = "") -> ReplyBody:
        """Send one body and wait for its answer; raises DeadlineExceeded, ConnectionLost or WireError.

        doubt: what the error of a time-out adds.
        """
        try:
            self._stream.send(self._exchange.request(joined(parts)), deadline)
            while True:
                count = self._stream.receive(self._space, deadline)
                answer = self._exchange.feed(bytes(self._space[:count]))
                if answer is not None:
                    return answer
        except TimeoutError as error:
            raise self._no_answer(doubt) from error
        except OSError as error:
            raise ConnectionLost(f"the connection ended without an answer ({error})") from error

    def is_usable(self, may_close: bool, deadline: float) -> bool:
        """Whether another request can follow: servers end a connection that is not used."""
        return not self._exchange.is_over and not self._stream.is_readable(0)

    def close(self, deadline: float) -> None:
        """End it."""
        self._stream.close()

    def cut(self) -> None:
        """End it at once."""
        self._stream.cut()

    def forget(self) -> None:
        """Close this process's hold of it only: after a fork the parent goes on using it."""
        self._stream.close()


class AsyncHttpLink(_Common):
    """An AsyncClient's connection, of one event loop. After an exception of any call but close() it must be cut."""

    def __init__(self, options: ClientOptions, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(options)
        self.loop = asyncio.get_running_loop()
        self._reader, self._writer = reader, writer

    async def ask(self, parts: list[Part], deadline: float, doubt: str = "") -> ReplyBody:
        """Send one body and wait for its answer; raises DeadlineExceeded, ConnectionLost or WireError.

        doubt: what the error of a time-out adds.
        """
        try:
            async with timeout(left_s(deadline)):
                self._writer.write(self._exchange.request(joined(parts)))
                await self._writer.drain()
                while True:
                    answer = self._exchange.feed(await self._reader.read(_RECEIVED_BYTES))
                    if answer is not None:
                        return answer
        except asyncio.TimeoutError as error:
            raise self._no_answer(doubt) from error
        except OSError as error:
            raise ConnectionLost(f"the connection ended without an answer ({error})") from error

    async def is_usable(self, may_close: bool, deadline: float) -> bool:
        """Whether another request can follow: servers end a connection that is not used."""
        return not (self._exchange.is_over or self._reader.at_eof() or self._writer.is_closing())

    async def close(self, deadline: float) -> None:
        """End it."""
        self._writer.close()

    def cut(self) -> None:
        """End it at once."""
        self._writer.transport.abort()


def open_http(options: ClientOptions, deadline: float, check: Callable[[socket.socket, Address], None]) -> HttpLink:
    """Connect; raises NotYet, ConnectionLost or DeadlineExceeded.

    check: called with a socket that is connected, raises ConfigError where its server can never answer.
    """
    connected = reach(options, deadline)
    try:
        check(connected, options.address)
        return HttpLink(options, connected)
    except BaseException:
        connected.close()
        raise


async def open_async_http(options: ClientOptions, deadline: float) -> AsyncHttpLink:
    """As open_http()."""
    reader, writer = await asyncio.open_connection(sock=await aio_reach(options, deadline))
    return AsyncHttpLink(options, reader, writer)
