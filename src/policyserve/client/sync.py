"""The client for programs without an event loop."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from policyserve.client.options import ClientOptions, image_sender
from policyserve.client.retries import NotYet, Retries, greeting_of
from policyserve.client.session import ClientSession
from policyserve.client.sync_link import Link, open_link
from policyserve.core.errors import ClientInUse, WrongDialect
from policyserve.core.log import Log
from policyserve.core.messages import Observation, Reply

if TYPE_CHECKING:
    import ssl

    from policyserve.client.sync_link import AnyLink

log = Log(__name__)

_OF_A_CONNECTION = {"sessions_opened", "_images", "_session", "_link", "_lock", "_process"}


class Client:
    """Asks a policy server for actions over one WebSocket. It connects when it is first used, one thread at a time.

    url: ws://host:port, wss://host:port, or ws+unix:///path/to/socket on the same machine; zmq://host:5555 of a server
    of GR00T's, NVIDIA's own or one with `--gr00t` (extra `gr00t`); http://host:port of one that is asked by `POST
    /act`, whose policy remembers nothing of earlier requests; grpc://host:port/NAME of one of LeRobot's, asked for the
    policy NAME (extra `lerobot-client`). dialect: the wire format to speak: openpi, wall_x, vibe_rl, vla_eval or
    another family's (docs/clients.md); None: the one that the URL's path names, else openpi, which every policyserve
    server understands. api_key: the white space around it is taken off. ssl_context: for wss://, where the system's
    certificates are not the right ones. timeout_s: for each call, connecting, greeting and closing included, whatever
    the server sends meanwhile. retry_for_s: how much of it is spent on trying again where nobody answers, because the
    server restarts for example; 0: one attempt. busy_poll_us: where answers come within this time it is spent polling,
    since a core that sleeps takes tens of microseconds to wake up; 0: never. check_actions: refuse actions with NaN or
    Inf, which only a server that is not policyserve sends, as BadAction. dead_after_s: a server that has answered once,
    and of which nothing is heard for so long while it owes an answer, not even a pong, is ConnectionLost; None: it has
    timeout_s. images: how camera pictures travel: "raw", as they are; "jpeg", encoded with jpeg_quality (1 … 100),
    where the server says that it takes them, else raw and a warning in the log; "auto", whichever of the two is
    measured to be quicker. Both of these shrink a picture that is larger than the spec's.
    Raises ConfigError for a wrong argument, MissingDependency without the extra `jpeg`.

    Every call may raise ConnectionLost, DeadlineExceeded (both close the connection; the next call opens a new one) and
    RemoteError (the server's refusal; its `code` and `retryable` say which). A request is sent once: one whose
    connection breaks is ConnectionLost, and whether to ask again is the caller's to decide. A second call at the same
    time is ClientInUse; an observation that cannot be sent is WireError, which names the value. A message that
    nobody asked for is WireError for the next call, which would take it for its answer. In the thread whose event loop
    runs the server itself, as a notebook's may, connecting is ConfigError: nobody could answer.

    A connection is a session, and what a policy remembers ends with it; `sessions_opened` counts them. There is no
    thread behind a client: between two calls nobody answers the server's pings. A policyserve server cuts a session
    that was not heard of for three minutes (--ping-timeout-s); the next call then opens a new one.

    A pickled client, a copied one, and the one that a fork's child has are its arguments, the key included: each opens
    a session of its own when it is used. One with an ssl_context cannot be pickled (TypeError).
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
        busy_poll_us: float = 200.0,
        check_actions: bool = True,
        dead_after_s: float | None = None,
        images: Literal["raw", "jpeg", "auto"] = "raw",
        jpeg_quality: int = 90,
    ) -> None:
        options = (url, dialect, api_key, ssl_context, timeout_s, retry_for_s, busy_poll_us, check_actions)
        self._options = ClientOptions(*options, dead_after_s, images, jpeg_quality)
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Be a client that has not connected yet, in this process."""
        self.sessions_opened = 0
        self._images = image_sender(self._options)
        self._session: ClientSession = self._new_session()
        self._link: AnyLink | None = None
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy of this client holds: all but its connection."""
        return {name: value for name, value in vars(self).items() if name not in _OF_A_CONNECTION}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._start_afresh()

    def __repr__(self) -> str:
        return self._options.shown(type(self).__name__, self.sessions_opened, self._link is not None)

    def infer(self, observation: Observation) -> Reply:
        """Send an observation and wait for its answer.

        observation: a map, flat or nested, of arrays, texts and numbers; what a policyserve server takes stands in
        `metadata["spec"]`. The reply's actions are one action or, with an axis in front, a chunk of them; its times are
        in ms. Raises ConnectionLost, DeadlineExceeded or RemoteError where no answer comes, WireError for what cannot
        be sent or read, BadAction for NaN and Inf, ClientInUse during another call.
        """
        deadline = time.monotonic() + self._options.timeout_s
        self._check_free()
        with self._lock:
            parts = None if self._session.waits_for_greeting else self._session.request(observation)
            link = self._connected(deadline)
            parts = self._session.request(observation) if parts is None else parts
            try:
                message = link.ask(parts, deadline, self._session.doubt)
            except BaseException:  # Ctrl-C, say: a program that goes on must not get this call's answer for its next
                self._cut()
                raise
            try:
                return self._session.reply(message)
            except WrongDialect:  # the next message may be this request's answer
                self._cut()
                raise

    @property
    def url(self) -> str:
        """The server's URL, with the path that is asked for and without a password."""
        return self._options.address.url

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said when this client connected; empty before, and where the dialect has no greeting."""
        return self._session.metadata

    def connect(self) -> None:
        """Connect now and read the server's metadata, unless that is done; infer() does it when it must."""
        self._check_free()
        with self._lock:
            self._connected(time.monotonic() + self._options.timeout_s)

    def reset(self) -> None:
        """Start a new session, as for a new episode: what the policy keeps for this one (`ActionChunk.state`) is gone.

        One object that serves all sessions is told by its own reset(), as long as no other session is open; with
        several, they share one memory, and the server's log says so.
        """
        deadline = time.monotonic() + self._options.timeout_s
        self._check_free()
        with self._lock:
            self._close()
            self._connected(deadline)

    def close(self) -> None:
        """Close the connection; the client may be used again and then opens a new one."""
        self._check_free()
        with self._lock:
            self._close()

    def __enter__(self) -> Client:
        self.connect()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

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

    def _connected(self, deadline: float) -> AnyLink:
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

    def _open(self, deadline: float) -> AnyLink:
        started_at = time.monotonic()
        until = min(started_at + self._options.retry_for_s, deadline)
        retries = Retries(self.url, started_at, until, random.random)
        while True:
            try:
                self._link = self._open_once(deadline)
                break
            except NotYet as reason:
                pause_s = retries.pause_s(reason, time.monotonic())
                if retries.attempts == 2:
                    log.warning("%s does not answer (%s): trying again", self.url, reason)
                time.sleep(pause_s)
        self.sessions_opened += 1
        if self.sessions_opened > 1:
            log.info("connected to %s again: a new session, without the policy's memory", self.url)
        return self._link

    def _open_once(self, deadline: float) -> AnyLink:
        options = self._options
        link = open_link(options, deadline)
        session = self._new_session()
        if session.is_greeted and isinstance(link, Link):
            with greeting_of(link, session, options.timeout_s):
                for message in session.opening:
                    link.send([message], deadline)
                session.on_greeting(link.receive(deadline))
        session.on_connected()
        self._session = session
        return link

    def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close(time.monotonic() + self._options.close_s)

    def _new_session(self) -> ClientSession:
        return ClientSession(self._options.wire, self.url, self._options.check_actions, self._images)

    def _cut(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.cut()
