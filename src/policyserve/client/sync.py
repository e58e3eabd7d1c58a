"""The client for programs without an event loop."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policyserve.client.address import read_address
from policyserve.client.retries import NotYet, Retries, cut_unless_greeted
from policyserve.client.session import ClientSession, open_session
from policyserve.client.sync_link import Link, open_link
from policyserve.core.errors import ClientInUse
from policyserve.core.messages import Observation, Reply

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)


class Client:
    """Asks a policy server for actions over one WebSocket. It connects when it is first used, one thread at a time.

    url: ws://host:port, wss://host:port, or ws+unix:///path/to/socket on the same machine. dialect: the wire format
    that the server speaks. ssl_context: for wss://, where the system's certificates are not the right ones. timeout_s:
    for each call, connecting and greeting included. retry_for_s: how much of it is spent on trying again where nobody
    answers, because the server restarts for example; 0: one attempt. busy_poll_us: where answers come within this time
    it is spent polling, since a core that sleeps takes tens of microseconds to wake up; 0: never.

    Every call may raise ConnectionLost, DeadlineExceeded (both close the connection; the next call opens a new one) and
    RemoteError (the server's refusal). A request is sent once: one whose connection breaks is ConnectionLost, and
    whether to ask again is the caller's to decide. A second call at the same time is ClientInUse.

    A connection is a session, and what a policy remembers ends with it; `sessions_opened` counts them. There is no
    thread behind a client: between two calls nobody answers the server's pings. A policyserve server cuts a session
    that was not heard of for three minutes (--ping-timeout-s); the next call then opens a new one.
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
        busy_poll_us: float = 200.0,
    ) -> None:
        self.sessions_opened = 0
        self._address = read_address(url, dialect)
        self._dialect = dialect
        self._api_key = api_key
        self._tls = ssl_context
        self._timeout_s = timeout_s
        self._retry_for_s = retry_for_s
        self._busy_poll_s = busy_poll_us / 1e6
        self._session: ClientSession = open_session(dialect)
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._process = os.getpid()

    def infer(self, observation: Observation) -> Reply:
        """Send an observation and wait for its answer."""
        deadline = time.monotonic() + self._timeout_s
        self._check_free()
        with self._lock:
            parts = self._session.request(observation)
            link = self._connected(deadline)
            try:
                frame = link.ask(parts, deadline)
            except BaseException:  # Ctrl-C, say: a program that goes on must not get this call's answer for its next
                self._cut()
                raise
            return self._session.reply(frame)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said on connect; empty where the dialect has no greeting."""
        self._connect()
        return self._session.metadata

    def reset(self) -> None:
        """Start a new session: the server drops this one's policy state."""
        self.close()
        self._connect()

    def close(self) -> None:
        """Close the connection; the client may be used again and then opens a new one."""
        self._check_free()
        with self._lock:
            link, self._link = self._link, None
            if link is not None:
                link.close()

    def __enter__(self) -> Client:
        self._connect()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _connect(self) -> None:
        self._check_free()
        with self._lock:
            self._connected(time.monotonic() + self._timeout_s)

    def _check_free(self) -> None:
        """Raise ClientInUse during another call, a signal handler's in the same thread included.

        Two threads that pass at the same instant take turns at the lock.
        """
        if self._process != os.getpid():
            self._leave_to_parent()
        if self._lock.locked():
            raise ClientInUse("this client is in the middle of a call; use one client per thread")

    def _leave_to_parent(self) -> None:
        """After a fork: the connection is the parent's, and the lock may be held by a thread that is not here."""
        self._process, self._lock = os.getpid(), threading.Lock()
        link, self._link = self._link, None
        if link is not None:
            link.forget()

    def _connected(self, deadline: float) -> Link:
        """The open connection; one that ended while nothing was asked is replaced, since nothing is lost by that."""
        if self._link is not None:
            try:
                if self._link.is_usable(self._session.may_close, deadline):
                    self._session.may_close = False
                    return self._link
                self._cut()
            except BaseException:
                self._cut()
                raise
        return self._open(deadline)

    def _open(self, deadline: float) -> Link:
        started_at = time.monotonic()
        until = min(started_at + self._retry_for_s, deadline)
        retries = Retries(self._address.url, started_at, until, random.random)
        while True:
            try:
                self._link = self._open_once(deadline)
                break
            except NotYet as reason:
                pause_s = retries.pause_s(reason, time.monotonic())
                if retries.attempts == 2:
                    log.warning("%s does not answer (%s): trying again", self._address.url, reason)
                time.sleep(pause_s)
        self.sessions_opened += 1
        if self.sessions_opened > 1:
            log.info("connected to %s again: a new session, without the policy's memory", self._address.url)
        return self._link

    def _open_once(self, deadline: float) -> Link:
        link = open_link(self._address, self._api_key, self._tls, self._timeout_s, deadline, self._busy_poll_s)
        session = open_session(self._dialect)
        if session.dialect.greets:
            with cut_unless_greeted(link):
                session.greeted(link.receive(deadline))
        self._session = session
        return link

    def _cut(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.cut()
