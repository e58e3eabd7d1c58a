"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from policyserve.client.aio_link import Link, open_link
from policyserve.client.options import ClientOptions, image_sender
from policyserve.client.retries import NotYet, Retries, greeting_of
from policyserve.client.session import ClientSession
from policyserve.core.errors import ClientInUse, ConfigError, WrongDialect
from policyserve.core.log import Log
from policyserve.core.messages import Observation, Reply

if TYPE_CHECKING:
    import ssl

    from policyserve.client.aio_link import AnyLink

log = Log(__name__)

_OF_A_CONNECTION = {"sessions_opened", "_images", "_session", "_link", "_is_in_use", "_process"}


class AsyncClient:
    """`Client` with `await`: the same arguments and errors, one task at a time. busy_poll_us must be 0.

    The event loop answers the server's pings while it runs. A connection belongs to the loop in which it was opened; in
    another one the client opens its own. Raises ConfigError for an argument that cannot be.
    """

    def __init__(
        self,
        url: str,
        *,
        dialect: str | None = None,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        retry_for_s: float = 10.0,
        busy_poll_us: float = 0.0,
        check_actions: bool = True,
        dead_after_s: float | None = None,
        images: Literal["raw", "jpeg", "auto"] = "raw",
        jpeg_quality: int = 90,
    ) -> None:
        options = (url, dialect, api_key, ssl_context, timeout_s, retry_for_s, busy_poll_us, check_actions)
        self._options = ClientOptions(*options, dead_after_s, images, jpeg_quality)
        if self._options.busy_poll_us:
            cause = "polling would keep the event loop from the program's other tasks"
            raise ConfigError(f"busy_poll_us: expected 0 for an AsyncClient, got {busy_poll_us:g}: {cause}")
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Be a client that has not connected yet, in this process."""
        self.sessions_opened = 0
        self._images = image_sender(self._options)
        self._session: ClientSession = self._new_session()
        self._link: AnyLink | None = None
        self._is_in_use = False
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy of this client holds: all but its connection."""
        return {name: value for name, value in vars(self).items() if name not in _OF_A_CONNECTION}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._start_afresh()

    def __repr__(self) -> str:
        return self._options.shown(type(self).__name__, self.sessions_opened, self._link is not None)

    async def infer(self, observation: Observation) -> Reply:
        """Send an observation and wait for its answer, as `Client.infer` does."""
        deadline = time.monotonic() + self._options.timeout_s
        self._begin()
        try:
            parts = None if self._session.waits_for_greeting else self._session.request(observation)
            link = await self._connected(deadline)
            parts = self._session.request(observation) if parts is None else parts
            try:
                message = await link.ask(parts, deadline, self._session.doubt)
            except BaseException:  # a cancellation, say: the next call must not get this one's answer
                self._cut()
                raise
            try:
                return self._session.reply(message)
            except WrongDialect:  # the next message may be this request's answer
                self._cut()
                raise
        finally:
            self._is_in_use = False

    @property
    def url(self) -> str:
        """The server's URL, with the path that is asked for and without a password."""
        return self._options.address.url

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said when this client connected; empty before, and where the dialect has no greeting."""
        return self._session.metadata

    async def connect(self) -> None:
        """Connect now and read the server's metadata, unless that is done; infer() does it when it must."""
        self._begin()
        try:
            await self._connected(time.monotonic() + self._options.timeout_s)
        finally:
            self._is_in_use = False

    async def reset(self) -> None:
        """Start a new session, as `Client.reset` does."""
        deadline = time.monotonic() + self._options.timeout_s
        self._begin()
        try:
            await self._close()
            await self._connected(deadline)
        finally:
            self._is_in_use = False

    async def close(self) -> None:
        """Close the connection; the client may be used again and then opens a new one."""
        self._begin()
        try:
            await self._close()
        finally:
            self._is_in_use = False

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _begin(self) -> None:
        """Note that a call begins; raises ClientInUse during another one."""
        if self._is_in_use and self._process == os.getpid():
            raise ClientInUse("this client is in the middle of a call; use one client per task")
        self._is_in_use = True

    def _is_ours(self, link: AnyLink) -> bool:
        """Whether it belongs to this event loop, and not to a parent process or to a loop that has ended."""
        return link.loop is asyncio.get_running_loop() and self._process == os.getpid()

    async def _connected(self, deadline: float) -> AnyLink:
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

    async def _open(self, deadline: float) -> AnyLink:
        started_at = time.monotonic()
        until = min(started_at + self._options.retry_for_s, deadline)
        retries = Retries(self.url, started_at, until, random.random)
        while True:
            try:
                self._link = await self._open_once(deadline)
                break
            except NotYet as reason:
                pause_s = retries.pause_s(reason, time.monotonic())
                if retries.attempts == 2:
                    log.warning("%s does not answer (%s): trying again", self.url, reason)
                await asyncio.sleep(pause_s)
        self.sessions_opened += 1
        if self.sessions_opened > 1:
            log.info("connected to %s again: a new session, without the policy's memory", self.url)
        return self._link

    async def _open_once(self, deadline: float) -> AnyLink:
        options = self._options
        link = await open_link(options, deadline)
        session = self._new_session()
        if session.is_greeted and isinstance(link, Link):
            with greeting_of(link, session, options.timeout_s):
                for message in session.opening:
                    await link.send([message], deadline)
                session.on_greeting(await link.receive(deadline))
        session.on_connected()
        self._session = session
        return link

    async def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None and self._is_ours(link):
            await link.close(time.monotonic() + self._options.close_s)

    def _new_session(self) -> ClientSession:
        return ClientSession(self._options.wire, self.url, self._options.check_actions, self._images)

    def _cut(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.cut()
