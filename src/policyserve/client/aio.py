"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from policyserve.client.session import ClientSession, address, connect_options, ended, open_session
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, PolicyserveError
from policyserve.core.messages import Frame, Observation, Reply

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

T = TypeVar("T")


class AsyncClient:
    """`Client` with `await`: one request at a time, connects when it is first used, the same errors."""

    def __init__(
        self, url: str, *, dialect: str = "openpi", api_key: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self._url = address(url, dialect)
        self._dialect = dialect
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._session: ClientSession = open_session(dialect)
        self._connection: ClientConnection | None = None
        self._is_unused = True  # no request was sent on it

    async def infer(self, observation: Observation) -> Reply:
        """Send an observation and wait for its answer."""
        deadline = time.monotonic() + self._timeout_s
        frame = self._session.request(observation)
        connection = await self._connect(deadline)
        return self._session.reply(await self._exchange(connection, frame, deadline))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said when this client connected; empty before, and where the dialect has no greeting."""
        return self._session.metadata

    async def reset(self) -> None:
        """Start a new session: the server drops this one's policy state."""
        await self.close()
        await self._connect(time.monotonic() + self._timeout_s)

    async def close(self) -> None:
        """Close the connection; the client may be used again and then opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def __aenter__(self) -> AsyncClient:
        await self._connect(time.monotonic() + self._timeout_s)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _connect(self, deadline: float) -> ClientConnection:
        if self._connection is not None and self._is_unused:
            for _ in range(2):
                await asyncio.sleep(0)  # the loop reads what came meanwhile: a close for its silence, say
        if self._connection is not None and self._connection.state.name != "OPEN":
            self._drop(self._connection)  # ended while nothing was asked: nothing is lost by opening a new one
        if self._connection is not None:
            return self._connection
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidHandshake

        try:
            connection = await connect(self._url, **connect_options(self._api_key, _left(deadline)))
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise DeadlineExceeded(f"no handshake with {self._url} within {self._timeout_s:g} s") from error
        except (OSError, EOFError, ValueError, ConnectionClosed, InvalidHandshake) as error:
            raise ConnectionLost(f"cannot connect to {self._url}: {error}") from error
        self._session = open_session(self._dialect)
        if self._session.dialect.greets:
            try:
                self._session.greeted(await self._until(deadline, connection.recv(), connection))
            except PolicyserveError:
                self._drop(connection)
                raise
        self._connection, self._is_unused = connection, True
        return connection

    async def _exchange(self, connection: ClientConnection, frame: Frame, deadline: float) -> Frame:
        self._is_unused = False
        await self._until(deadline, connection.send(frame), connection)
        return await self._until(deadline, connection.recv(), connection)

    async def _until(self, deadline: float, waiting: Awaitable[T], connection: ClientConnection) -> T:
        from websockets.exceptions import ConnectionClosed

        try:
            async with timeout(_left(deadline)):  # not wait_for: on Python 3.11 it may swallow a cancellation
                return await waiting
        except ConnectionClosed as error:
            self._drop(connection)
            raise ended(error) from error
        except asyncio.TimeoutError as error:
            self._drop(connection)
            raise DeadlineExceeded(f"no answer from {self._url} within {self._timeout_s:g} s") from error
        except asyncio.CancelledError:
            self._drop(connection)
            raise

    def _drop(self, connection: ClientConnection) -> None:
        """Cut the connection: an answer that comes late must not be taken for the next request's."""
        self._connection = None
        connection.transport.abort()


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
