"""The client for programs without an event loop."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from policyserve.client.session import ClientSession, address, connect_options, ended, open_session
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, PolicyserveError
from policyserve.core.messages import Frame, Observation, Reply

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection


class Client:
    """Asks a policy server for actions over one WebSocket. It connects when it is first used, one thread at a time.

    url: ws:// or wss://. dialect: the wire format that the server speaks. timeout_s: for each call, connecting and
    greeting included. Every call may raise ConnectionLost, DeadlineExceeded (both close the connection; the next call
    opens a new one) and RemoteError (the server's refusal).
    """

    def __init__(
        self, url: str, *, dialect: str = "openpi", api_key: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self._url = address(url, dialect)
        self._dialect = dialect
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._session: ClientSession = open_session(dialect)
        self._connection: ClientConnection | None = None

    def infer(self, observation: Observation) -> Reply:
        """Send an observation and wait for its answer."""
        deadline = time.monotonic() + self._timeout_s
        frame = self._session.request(observation)
        connection = self._connect(deadline)
        return self._session.reply(self._exchange(connection, frame, deadline))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said on connect; empty where the dialect has no greeting."""
        self._connect(time.monotonic() + self._timeout_s)
        return self._session.metadata

    def reset(self) -> None:
        """Start a new session: the server drops this one's policy state."""
        self.close()
        self._connect(time.monotonic() + self._timeout_s)

    def close(self) -> None:
        """Close the connection; the client may be used again and then opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Client:
        self._connect(time.monotonic() + self._timeout_s)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _connect(self, deadline: float) -> ClientConnection:
        if self._connection is not None and self._connection.state.name != "OPEN":
            self._drop(self._connection)  # ended while nothing was asked: nothing is lost by opening a new one
        if self._connection is not None:
            return self._connection
        from websockets.exceptions import ConnectionClosed, InvalidHandshake
        from websockets.sync.client import connect

        options = connect_options(self._api_key, _left(deadline))
        try:
            # Entered by hand, since it outlives this call: the same in every release of the library.
            connection = connect(self._url, **options).__enter__()
        except TimeoutError as error:
            raise DeadlineExceeded(f"no handshake with {self._url} within {self._timeout_s:g} s") from error
        except (OSError, EOFError, ValueError, ConnectionClosed, InvalidHandshake) as error:
            raise ConnectionLost(f"cannot connect to {self._url}: {error}") from error
        _bound_sending(connection.socket, self._timeout_s)
        self._session = open_session(self._dialect)
        if self._session.dialect.greets:
            try:
                self._session.greeted(self._receive(connection, deadline))
            except PolicyserveError:
                self._drop(connection)
                raise
        self._connection = connection
        return connection

    def _exchange(self, connection: ClientConnection, frame: Frame, deadline: float) -> Frame:
        from websockets.exceptions import ConnectionClosed

        try:
            connection.send(frame)
        except ConnectionClosed as error:
            self._drop(connection)
            if isinstance(error.__cause__, BlockingIOError):
                raise DeadlineExceeded(f"{self._url} took no request within {self._timeout_s:g} s") from error
            raise ended(error) from error
        except BaseException:  # Ctrl-C, say
            self._drop(connection)
            raise
        return self._receive(connection, deadline)

    def _receive(self, connection: ClientConnection, deadline: float) -> Frame:
        from websockets.exceptions import ConnectionClosed

        try:
            return connection.recv(timeout=_left(deadline))
        except TimeoutError as error:
            self._drop(connection)
            raise DeadlineExceeded(f"no answer from {self._url} within {self._timeout_s:g} s") from error
        except ConnectionClosed as error:
            self._drop(connection)
            raise ended(error) from error
        except BaseException:  # Ctrl-C, say: a program that goes on must not get this call's answer for its next
            self._drop(connection)
            raise

    def _drop(self, connection: ClientConnection) -> None:
        """Cut the connection: an answer that comes late must not be taken for the next request's."""
        self._connection = None
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)
        connection.close()


def _bound_sending(connected: socket.socket, timeout_s: float) -> None:
    """Have a send that makes no progress for so long fail: `websockets` has no time-out for it."""
    if sys.platform != "win32":  # where the option is of another form
        seconds = int(timeout_s)
        interval = struct.pack("@ll", seconds, max(int((timeout_s - seconds) * 1e6), 1))
        with suppress(OSError):  # the peer has ended it already: the next call finds out
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
