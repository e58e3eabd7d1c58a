"""One connection over a blocking socket: the thin shell around a Wire."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from policyserve.client.address import Address
from policyserve.client.handshake import Handshake, connect_error
from policyserve.client.sockets import left_s, readable
from policyserve.client.wire import Wire
from policyserve.core.errors import DeadlineExceeded, WireError
from policyserve.core.messages import Frame, Part

if TYPE_CHECKING:
    import ssl

_CLOSE_S = 1.0  # for the server to end its side
_PONG_S = 1.0
_RECEIVED_BYTES = 1 << 16  # of a handshake, at a time


class Link:
    """One open WebSocket; one thread at a time. After an exception of any call but close() it must be cut."""

    def __init__(self, connected: socket.socket, wire: Wire, address: Address, timeout_s: float) -> None:
        self._socket = connected
        self._wire = wire
        self._address = address
        self._timeout_s = timeout_s
        self._is_readable = readable(connected)

    def ask(self, parts: list[Part], deadline: float) -> Frame:
        """Send one message and wait for the next that comes."""
        try:
            for piece in self._wire.request(parts):
                self._socket.settimeout(left_s(deadline))
                self._socket.sendall(piece)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._address.url} took no request within {self._timeout_s:g} s") from error
        except OSError as error:
            self._read_waiting()  # the server may have said why
            self._wire.lost(str(error))
        return self.receive(deadline)

    def receive(self, deadline: float) -> Frame:
        """Wait for a message; raises DeadlineExceeded, or how the connection ended."""
        while (message := self._wire.take()) is None:
            try:
                self._read(deadline)
            except TimeoutError as error:
                raise DeadlineExceeded(f"no answer from {self._address.url} within {self._timeout_s:g} s") from error
        return message

    def is_usable(self, may_close: bool, deadline: float) -> bool:
        """Whether it is open still, after all that came while nothing was asked.

        may_close: the server's last answer was an error, behind which it may close: ask it. Raises WireError if the
        server said something that nobody asked for: the next answer would be taken for another's.
        """
        if may_close:
            self._await_pong(min(deadline, time.monotonic() + _PONG_S))
        if self._is_readable():
            self._read_waiting()
        if not self._wire.is_silent:
            raise WireError("", "one answer to each request", "another message")
        return self._wire.end is None

    def close(self) -> None:
        """Say goodbye, and wait a moment for the server's."""
        deadline = time.monotonic() + _CLOSE_S
        try:
            with suppress(OSError):
                self._socket.settimeout(_CLOSE_S)
                self._socket.sendall(self._wire.close())
                if not self._address.is_secure:
                    self._socket.shutdown(socket.SHUT_WR)
                while self._wire.end is None:
                    self._read(deadline)
        finally:
            self._socket.close()

    def cut(self) -> None:
        """End it at once: an answer that comes late must not be taken for the next request's."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def forget(self) -> None:
        """Close this process's hold of it only: after a fork the parent goes on using it."""
        self._socket.close()

    def _read(self, deadline: float) -> None:
        self._socket.settimeout(left_s(deadline))
        try:
            self._wire.advance(self._socket.recv_into(self._wire.get_buffer()))
        except TimeoutError:
            raise
        except OSError as error:
            self._wire.lost(str(error))
        if self._wire.unsent:
            self._flush()

    def _read_waiting(self) -> None:
        """Read what is there, without waiting for more."""
        wire = self._wire
        self._socket.settimeout(0)
        try:
            while wire.end is None and wire.is_silent:
                wire.advance(self._socket.recv_into(wire.get_buffer()))
        except OSError as error:
            if not _is_would_block(error):
                wire.lost(str(error))
        self._socket.settimeout(self._timeout_s)
        self._flush()

    def _flush(self) -> None:
        unsent, self._wire.unsent = self._wire.unsent, b""
        with suppress(OSError):  # the next read finds out
            self._socket.sendall(unsent)

    def _await_pong(self, deadline: float) -> None:
        wire = self._wire
        before = wire.pongs
        try:
            self._socket.settimeout(left_s(deadline))
            self._socket.sendall(wire.ping())
            while wire.pongs == before and wire.end is None and wire.is_silent:
                self._read(deadline)
        except TimeoutError:
            pass  # a server that answers no pings, or is busy: it has not closed
        except OSError as error:
            self._read_waiting()
            wire.lost(str(error))


def open_link(
    address: Address, api_key: str | None, tls: ssl.SSLContext | None, timeout_s: float, deadline: float
) -> Link:
    """Connect and shake hands; raises NotYet, RemoteError (ConnectionLost among them) or DeadlineExceeded."""
    connected = None
    try:
        connected = _connect(address, deadline)
        if address.is_secure:
            connected = _encrypted(connected, tls, address.host)
        wire = Wire(None if address.unix_path is not None else os.urandom)
        wire.feed(_shake_hands(connected, Handshake(address, api_key), deadline))
        return Link(connected, wire, address, timeout_s)
    except BaseException as error:
        if connected is not None:
            connected.close()
        if isinstance(error, TimeoutError) and time.monotonic() >= deadline:
            raise DeadlineExceeded(f"no handshake with {address.url} within {timeout_s:g} s") from error
        if isinstance(error, (OSError, UnicodeError)):  # UnicodeError: a host's name that is none
            raise connect_error(address, error) from error
        raise


def _connect(address: Address, deadline: float) -> socket.socket:
    if address.unix_path is None:
        connected = socket.create_connection((address.host, address.port), left_s(deadline))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(left_s(deadline))
        connected.connect(address.unix_path)
    except BaseException:
        connected.close()
        raise
    return connected


def _encrypted(connected: socket.socket, tls: ssl.SSLContext | None, host: str) -> socket.socket:
    import ssl

    return (tls or ssl.create_default_context()).wrap_socket(connected, server_hostname=host)


def _shake_hands(connected: socket.socket, handshake: Handshake, deadline: float) -> bytes:
    """Returns what came behind the handshake."""
    connected.sendall(handshake.request)
    behind = None
    while behind is None:
        connected.settimeout(left_s(deadline))
        try:
            received = connected.recv(_RECEIVED_BYTES)
        except ConnectionError:
            received = b""
        behind = handshake.feed(received)
    return behind


def _is_would_block(error: OSError) -> bool:
    """Whether nothing is there to read; TLS says it in its own way."""
    tls = sys.modules.get("ssl")
    return isinstance(error, BlockingIOError) or (tls is not None and isinstance(error, tls.SSLWantReadError))
