"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policyserve.client.address import read_address
from policyserve.client.aio_link import Link, open_link
from policyserve.client.retries import NotYet, Retries, cut_unless_greeted
from policyserve.client.session import ClientSession, open_session
from policyserve.core.errors import ClientInUse
from policyserve.core.messages import Observation, Reply

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)


class AsyncClient:
    """`Client` with `await`: the same arguments and errors, one task at a time.

    The event loop answers the server's pings while it runs. A connection belongs to the loop in which it was opened; in
    another one the client opens its own.
    """

    def __init__(
        self,
        url: str,
        *,
        dialect: str = "openpi",
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        retry_for_s: float = 10.0,
    ) -> None:
        self.sessions_opened = 0
        self._address = read_address(url, dialect)
        self._dialect = dialect
        self._api_key = api_key
        self._tls = ssl_context
        self._timeout_s = timeout_s
        self._retry_for_s = retry_for_s
        self._session: ClientSession = open_session(dialect)
        self._link: Link | None = None
        self._is_in_use = False
        self._process = os.getpid()

    async def infer(self, observation: Observation) -> Reply:
        """Send an observation and wait for its answer."""
        deadline = time.monotonic() + self._timeout_s
        self._begin()
        try:
            parts = self._session.request(observation)
            link = await self._connected(deadline)
            try:
                frame = await link.ask(parts, deadline)
            except BaseException:  # a cancellation, say: the next call must not get this one's answer
                self._cut()
                raise
            return self._session.reply(frame)
        finally:
            self._is_in_use = False

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said when this client connected; empty before, and where the dialect has no greeting."""
        return self._session.metadata

    async def reset(self) -> None:
        """Start a new session: the server drops this one's policy state."""
        await self.close()
        await self._connect()

    async def close(self) -> None:
        """Close the connection; the client may be used again and then opens a new one."""
        self._begin()
        try:
            link, self._link = self._link, None
            if link is not None and self._is_ours(link):
                await link.close()
        finally:
            self._is_in_use = False

    async def __aenter__(self) -> AsyncClient:
        await self._connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _connect(self) -> None:
        self._begin()
        try:
            await self._connected(time.monotonic() + self._timeout_s)
        finally:
            self._is_in_use = False

    def _begin(self) -> None:
        """Note that a call begins; raises ClientInUse during another one."""
        if self._is_in_use and self._process == os.getpid():
            raise ClientInUse("this client is in the middle of a call; use one client per task")
        self._is_in_use = True

    def _is_ours(self, link: Link) -> bool:
        """Whether it belongs to this event loop, and not to a parent process or to a loop that has ended."""
        return link.loop is asyncio.get_running_loop() and self._process == os.getpid()

    async def _connected(self, deadline: float) -> Link:
        """The open connection; one that ended while nothing was asked is replaced, since nothing is lost by that."""
        link = self._link
        if link is not None and not self._is_ours(link):
            self._link = link = None
        self._process = os.getpid()
        if link is not None:
            try:
                if await link.is_usable(self._session.may_close, deadline):
                    self._session.may_close = False
                    return link
                self._cut()
            except BaseException:
                self._cut()
                raise
        return await self._open(deadline)

    async def _open(self, deadline: float) -> Link:
        started_at = time.monotonic()
        until = min(started_at + self._retry_for_s, deadline)
        retries = Retries(self._address.url, started_at, until, random.random)
        while True:
            try:
                self._link = await self._open_once(deadline)
                break
            except NotYet as reason:
                pause_s = retries.pause_s(reason, time.monotonic())
                if retries.attempts == 2:
                    log.warning("%s does not answer (%s): trying again", self._address.url, reason)
                await asyncio.sleep(pause_s)
        self.sessions_opened += 1
        if self.sessions_opened > 1:
            log.info("connected to %s again: a new session, without the policy's memory", self._address.url)
        return self._link

    async def _open_once(self, deadline: float) -> Link:
        link = await open_link(self._address, self._api_key, self._tls, self._timeout_s, deadline)
        session = open_session(self._dialect)
        if session.dialect.greets:
            with cut_unless_greeted(link):
                session.greeted(await link.receive(deadline))
        self._session = session
        return link

    def _cut(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.cut()
