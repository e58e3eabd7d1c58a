"""One connection over a socket of its own: it moves bytes between a Stream and a Wire."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from policyserve.client.address import Address
from policyserve.client.connecting import connect
from policyserve.client.connection import Silence, Wire
from policyserve.client.handshake import Handshake, connect_error
from policyserve.client.options import ClientOptions
from policyserve.client.sockets import Stream, check_time, left_s, widen
from policyserve.core import listening
from policyserve.core.errors import ConfigError, DeadlineExceeded, WireError
from policyserve.core.messages import Message, Part

if TYPE_CHECKING:
    import ssl

    from policyserve.client.grpc_link import GrpcLink
    from policyserve.client.http_link import HttpLink
    from policyserve.client.zmq_link import ZmqLink

    AnyLink: TypeAlias = "Link | ZmqLink | HttpLink | GrpcLink"

_PONG_S = 1.0
_RECEIVED_BYTES = 1 << 16  # of a handshake, at a time


class Link:
    """One open WebSocket, used by one thread at a time. After an exception of any call but close() it must be cut."""

    def __init__(
        self, stream: Stream, wire: Wire, address: Address, timeout_s: float, dead_after_s: float | None = None
    ) -> None:
        self._stream = stream
        self._wire = wire
        self._address = address
        self._timeout_s = timeout_s
        self._silence = Silence(dead_after_s)

    def ask(self, parts: list[Part], deadline: float, doubt: str = "") -> Message:
        """Send one message and wait for the next that comes; raises what receive() raises.

        doubt: what the error of a time-out adds.
        """
        self.send(parts, deadline)
        message = self.receive(deadline, doubt)
        self._silence.is_known = True
        return message

    def send(self, parts: list[Part], deadline: float) -> None:
        """Send one message; raises DeadlineExceeded. What else goes wrong, receive() raises."""
        try:
            pieces = self._wire.request(parts)
            if isinstance(pieces, list):
                self._stream.send_pieces(pieces, deadline)
            else:
                for piece in pieces:
                    self._stream.send(piece, deadline)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._address.url} took no request within {self._timeout_s:g} s") from error
        except OSError as error:
            self._lose(error, deadline)

    def receive(self, deadline: float, doubt: str = "") -> Message:
        """Wait for a message; raises DeadlineExceeded, or how the connection ended."""
        wire = self._wire
        wire.is_awaited = True
        message = wire.take()
        try:
            self._silence.begin(time.monotonic())
            while message is None:
                self._read_or_ping(deadline)
                message = wire.take()
                if message is None:  # much may have come all the same: pings, or parts of a message
                    check_time(deadline)
        except TimeoutError as error:
            raise self._no_answer(doubt) from error
        return message

    def is_usable(self, may_close: bool, deadline: float) -> bool:
        """Whether the connection is still open, once all that came since the last answer has been read.

        may_close: the server's last answer was an error, behind which it may close: ask it. Raises WireError if the
        server said, or began to say, something that nobody asked for: it would be taken for the next answer. Raises
        DeadlineExceeded if what it sends has no end.
        """
        if may_close:
            self._await_pong(min(deadline, time.monotonic() + _PONG_S))
        if self._stream.is_readable(0):
            try:
                self._read_waiting(deadline)
            except TimeoutError as error:
                raise self._no_answer() from error
        if not self._wire.is_quiet:
            raise WireError("", "one answer to each request", "another message")
        return self._wire.end is None

    def close(self, deadline: float) -> None:
        """Send a close frame, and wait for the server's."""
        try:
            with suppress(OSError):
                self._stream.send(self._wire.close(), deadline)
                if not self._address.is_secure:
                    self._stream.end_writing()
                while self._wire.end is None:
                    self._read(deadline)
                    check_time(deadline)
        finally:
            self._stream.close()

    def cut(self) -> None:
        """End it at once: an answer that comes late must not be taken for the next request's."""
        self._stream.cut()

    def forget(self) -> None:
        """Close this process's hold of it only: after a fork the parent goes on using it."""
        self._stream.close()

    def _read_or_ping(self, deadline: float) -> None:
        """Wait for bytes; a server that is silent is asked for a pong, and lost if that does not come either."""
        silence = self._silence
        try:
            self._read(min(deadline, silence.until))
            silence.begin(time.monotonic())
        except TimeoutError:
            now = time.monotonic()
            if now >= deadline:
                raise
            if silence.is_death(now):
                self._wire.on_lost(silence.told)
            else:
                with suppress(OSError):  # the next read finds out
                    self._stream.send(self._wire.ping(), deadline)

    def _read(self, deadline: float) -> None:
        wire = self._wire
        try:
            wire.advance(self._stream.receive(wire.get_buffer(), deadline))
        except TimeoutError:
            raise
        except OSError as error:
            wire.on_lost(str(error))
        if wire.unsent:
            self._flush(deadline)

    def _read_waiting(self, deadline: float) -> None:
        """Read what is there, without waiting for more; raises TimeoutError if there always is more."""
        wire = self._wire
        try:
            while wire.end is None and wire.is_silent and not wire.has_unasked:
                count = self._stream.receive_waiting(wire.get_buffer())
                if count is None:
                    break
                wire.advance(count)
                check_time(deadline)
        except TimeoutError:
            raise
        except OSError as error:
            wire.on_lost(str(error))
        if wire.unsent:
            self._flush(deadline)

    def _flush(self, deadline: float) -> None:
        unsent, self._wire.unsent = self._wire.unsent, b""
        with suppress(OSError):  # the next read finds out
            self._stream.send(unsent, deadline)

    def _await_pong(self, deadline: float) -> None:
        wire = self._wire
        before = wire.pongs
        try:
            self._stream.send(wire.ping(), deadline)
            while wire.pongs == before and wire.end is None and wire.is_quiet:
                self._read(deadline)
                check_time(deadline)
        except TimeoutError:
            pass  # a server that answers no pings, or is busy: it has not closed
        except OSError as error:
            self._lose(error, deadline)

    def _lose(self, error: OSError, deadline: float) -> None:
        """Note that nothing can be sent any more; the server may have said why."""
        with suppress(TimeoutError):
            self._read_waiting(deadline)
        self._wire.on_lost(str(error))

    def _no_answer(self, doubt: str = "") -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {self._address.url} within {self._timeout_s:g} s{doubt}")


def open_link(options: ClientOptions, deadline: float) -> AnyLink:
    """Connect and shake hands; raises NotYet, RemoteError (ConnectionLost among them) or DeadlineExceeded.

    Raises ConfigError in the thread whose own event loop is the server's.
    """
    address = options.address
    if address.is_grpc:
        from policyserve.client.grpc_link import open_grpc  # needs an extra

        return open_grpc(options, deadline, _check_other_loop)
    if address.is_http:
        from policyserve.client.http_link import open_http  # few clients need it

        return open_http(options, deadline, _check_other_loop)
    if address.is_zmq:
        from policyserve.client.zmq_link import open_zmq  # needs an extra

        return open_zmq(options, deadline, _check_other_loop)
    connected = None
    try:
        connected = reach(address, deadline)
        _check_other_loop(connected, address)
        if address.is_secure:
            connected = encrypted(connected, options.ssl_context, address.host, deadline)
        wire = Wire(None if address.unix_path is not None else os.urandom)
        handshake = Handshake(address, options.api_key, asks_images=options.may_encode)
        wire.feed(shake_hands(connected, handshake, deadline))
        return Link(
            _stream(connected, address, options.busy_poll_us / 1e6),
            wire,
            address,
            options.timeout_s,
            options.dead_after_s,
        )
    except BaseException as error:
        if connected is not None:
            connected.close()
        if isinstance(error, TimeoutError) and error.errno is None:  # else it is the system's own time-out
            raise DeadlineExceeded(f"no handshake with {address.url} within {options.timeout_s:g} s") from error
        if isinstance(error, (OSError, UnicodeError)):  # UnicodeError: a host's name that is none
            raise connect_error(address, error) from error
        raise


def reach(address: Address, deadline: float) -> socket.socket:
    """Connect to a host or a Unix socket, without TLS; raises what connect() raises, or the socket's OSError."""
    if address.unix_path is None:
        return connect(address.host, address.port, deadline)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(left_s(deadline))
        connected.connect(address.unix_path)
    except BaseException:
        connected.close()
        raise
    return connected


def _check_other_loop(connected: socket.socket, address: Address) -> None:
    """Raise ConfigError if the server waits for this thread's event loop, which waits for this client."""
    asyncio = sys.modules.get("asyncio")  # a program that has not imported it runs no event loop
    if asyncio is None:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    if listening.serves(loop, connected.getpeername(), connected.getsockname()):
        what = f"{address.url} is served by this thread's own event loop, which would wait for this client for ever"
        cures = "use policyserve.AsyncClient here, or serve with policyserve.start(policy), in a thread of its own"
        raise ConfigError(f"{what}: {cures}")


def encrypted(connected: socket.socket, tls: ssl.SSLContext | None, host: str, deadline: float) -> socket.socket:
    """Speak TLS from now on; tls None: the system's certificates are trusted. Raises an OSError."""
    import ssl

    connected.settimeout(left_s(deadline))  # wrap_socket() counts it from its beginning, whatever arrives
    return (tls or ssl.create_default_context()).wrap_socket(connected, server_hostname=host)


def shake_hands(connected: socket.socket, handshake: Handshake, deadline: float) -> bytes:
    """Become a WebSocket; returns what came behind the handshake. Raises what Handshake raises, or an OSError."""
    connected.settimeout(left_s(deadline))
    connected.sendall(handshake.request)
    while True:
        connected.settimeout(left_s(deadline))
        try:
            received = connected.recv(_RECEIVED_BYTES)
        except ConnectionError:
            received = b""
        behind = handshake.feed(received)
        if behind is not None:
            return behind
        check_time(deadline)


def _stream(connected: socket.socket, address: Address, busy_poll_s: float) -> Stream:
    if address.unix_path is not None:
        widen(connected)
    if not address.is_secure:
        return Stream(connected, busy_poll_s=busy_poll_s)
    import ssl

    return Stream(connected, (ssl.SSLWantReadError, ssl.SSLWantWriteError), busy_poll_s=busy_poll_s)
