"""Stands between any client and any server of the field, and records both. Messages pass as they are, one by one."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.http11 import Request, Response

from policyserve import dialects
from policyserve.client.address import Address, read_address
from policyserve.core.dialect import Dialect, opening_of
from policyserve.core.encoded_images import IMAGES_HEADER
from policyserve.core.errors import ConfigError, RemoteError, WireError
from policyserve.core.events import Event
from policyserve.core.examples import spec_of
from policyserve.core.log import Log
from policyserve.core.observer import SessionFacts
from policyserve.core.spec import checkpoint_of
from policyserve.dialects.recognition import family_of_first_message, family_of_greeting
from policyserve.recordings.layout import PolicyFacts
from policyserve.recordings.matching import Matching
from policyserve.recordings.recorder import Recorder

log = Log(__name__)

_PASSED = (
    "Authorization",
    "Cookie",
    "Origin",
    "User-Agent",
    IMAGES_HEADER,
)  # headers of a client that its server is to see
_UNSENDABLE = (1005, 1006, 1015)  # close codes that stand for what was not sent
_TIMEOUT_S = 30.0


@dataclass
class _Session:
    """One client and the server's half for it. is_greeted: the server has greeted, or answered a hello."""

    number: int
    dialect: Dialect | None
    matching: Matching = field(default_factory=Matching)
    is_greeted: bool = False
    has_spoken: bool = False  # the server has


@dataclass
class Proxy:
    """Listens on host and port, and hands on to `url`. Raises ConfigError for what is no address of a server."""

    url: str
    recorder: Recorder
    host: str = "127.0.0.1"
    port: int = 8001
    _sessions: int = field(default=0, init=False)
    _told: PolicyFacts | None = field(default=None, init=False)
    _upstreams: dict[ServerConnection, ClientConnection] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._place: Address = read_address(self.url, "")

    @property
    def server(self) -> str:
        """The server's URL, without a password."""
        return self._place.url

    @property
    def sessions(self) -> int:
        """How many there were."""
        return self._sessions

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Record while it is open; gives the URL for clients. Raises ConfigError where it cannot listen."""
        try:
            server = await serve(
                self._converse,
                self.host,
                self.port,
                process_request=self._open,
                compression=None,  # the server's messages pass as they are
                max_size=None,
                ping_interval=None,
                server_header=None,
            )
        except OSError as error:
            where = f"{self.host}:{self.port}"
            raise ConfigError(f"cannot listen on {where}: {error.strerror or error}") from error
        try:
            self.recorder.start()
            yield f"ws://{_shown(self.host)}:{_port_of(server)}"
        finally:
            server.close()
            await server.wait_closed()
            await self.recorder.close()

    # A session

    async def _open(self, connection: ServerConnection, request: Request) -> Response | None:
        """Connect to the server first: what it refuses, the client hears from it."""
        if "upgrade" not in request.headers.get("Connection", "").lower():
            return await asyncio.to_thread(self._page, request)
        headers = [(name, request.headers[name]) for name in _PASSED if name in request.headers]
        options: dict[str, Any] = {
            "compression": None,
            "max_size": None,
            "ping_interval": None,
            "open_timeout": _TIMEOUT_S,
            "additional_headers": [pair for pair in headers if pair[0] != "User-Agent"],
            "user_agent_header": request.headers.get("User-Agent"),
            "proxy": None,
        }
        target = self._target(request.path)
        try:
            if self._place.unix_path is not None:
                del options["proxy"]
                upstream = await unix_connect(self._place.unix_path, target, **options)
            else:
                upstream = await connect(target, **options)
        except InvalidStatus as error:
            return error.response
        except (OSError, WebSocketException, asyncio.TimeoutError) as error:
            event = Event("connection_refused", code=HTTPStatus.BAD_GATEWAY.value)
            log.warning("the server cannot be reached: %s", error, event=event)
            return connection.respond(HTTPStatus.BAD_GATEWAY, f"{self._place.url} cannot be reached: {error}\n")
        self._upstreams[connection] = upstream
        return None

    async def _converse(self, client: ServerConnection) -> None:
        server = self._upstreams.pop(client)
        self._sessions += 1
        session = _Session(self._sessions, self._dialect_at(client.request.path if client.request is not None else ""))
        name = session.dialect.name if session.dialect is not None else "auto"
        peer = ":".join(map(str, (client.remote_address or ("local",))[:2]))
        self.recorder.on_session_opened(SessionFacts(session.number, peer, name))
        event = Event("session_opened", session.number, peer, name)
        log.info("session %d opened dialect=%s peer=%s", session.number, name, peer, event=event)
        both = self._up(session, client, server), self._down(session, client, server)
        ways = [asyncio.ensure_future(way) for way in both]
        try:
            await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            await server.close()
            self.recorder.on_session_closed(session.number)
            log.info("session %d closed", session.number, event=Event("session_closed", session.number, peer))

    async def _up(self, session: _Session, client: Connection, server: Connection) -> None:
        with suppress(ConnectionClosed):
            async for message in client:
                now = time.monotonic()
                session.matching.ask(self._settled(session, message), message)
                self.recorder.on_message(session.number, message, now)
                await server.send(message)
        await _close_as(client, server)

    async def _down(self, session: _Session, client: Connection, server: Connection) -> None:
        with suppress(ConnectionClosed):
            async for message in server:
                number = self._number_of(session, message)
                self.recorder.say(session.number, number, message)
                await client.send(message)
        await _close_as(server, client)

    def _settled(self, session: _Session, message: bytes | str) -> Dialect:
        """What a client speaks, of which its first message tells."""
        if session.dialect is None:
            session.dialect = dialects.by_name(family_of_first_message(message, session.is_greeted))
            self.recorder.on_dialect(session.number, session.dialect.name)
            event = Event("session_speaks", session.number, dialect=session.dialect.name)
            log.info("session %d speaks %s", session.number, session.dialect.name, event=event)
        return session.dialect

    def _number_of(self, session: _Session, message: bytes | str) -> int:
        """Of the request that a server's message answers; 0 for a greeting, and for what answers no request."""
        dialect, has_spoken, session.has_spoken = session.dialect, session.has_spoken, True
        if dialect is None or (dialect.greets and not has_spoken):
            if not has_spoken:
                self._read_greeting(session, message)
            return 0
        number = session.matching.answer(dialect, message)
        if number == 0 and not session.is_greeted and opening_of(dialect):
            self._read_greeting(session, message)
        return number

    def _read_greeting(self, session: _Session, message: bytes | str) -> None:
        """Tell the recording what the server says of its policy."""
        session.is_greeted = True
        dialect = session.dialect or dialects.by_name("openpi")  # Wall-X's greetings are of the same form
        try:
            told = dialect.read_greeting(message)
        except (WireError, RemoteError) as error:
            log.debug("session %d: the greeting cannot be read: %s", session.number, error)
            return
        checkpoint = str(checkpoint_of(told))
        facts = PolicyFacts(self._place.url, _described(told.get("spec")), checkpoint, family_of_greeting(told))
        if facts != self._told:
            self._told = facts
            self.recorder.tell_policy(facts)

    # Pages

    def _dialect_at(self, path: str) -> Dialect | None:
        """What the path of the server, or of the client, says that is spoken there."""
        paths = self._target(path), path
        return next((found for one in paths if (found := dialects.for_path(urlsplit(one).path)) is not None), None)

    def _target(self, path: str) -> str:
        """The server's URL for what a client asks at `path`; a path in the given URL is the one that is used."""
        parts = urlsplit(self._place.http_url)
        own = parts.path.strip("/")
        asked = urlsplit(path)
        return parts._replace(path=parts.path if own else asked.path, query=parts.query or asked.query).geturl()

    def _page(self, request: Request) -> Response:
        """The server's answer to a plain HTTP request, such as /healthz."""
        place, kind = self._place, http.client.HTTPSConnection if self._place.is_secure else http.client.HTTPConnection
        asked = {name: request.headers[name] for name in _PASSED if name in request.headers}
        try:
            if place.unix_path is not None:
                raise OSError("it listens on a Unix socket")
            connection = kind(place.host, place.port, timeout=_TIMEOUT_S)
            connection.request("GET", request.path, headers=asked)
            answer = connection.getresponse()
            body = answer.read()
            content = answer.getheader("Content-Type") or "text/plain"
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            body, content = f"{place.url} cannot be reached: {error}\n".encode(), "text/plain"
            status, reason = HTTPStatus.BAD_GATEWAY.value, HTTPStatus.BAD_GATEWAY.phrase
        else:
            status, reason = answer.status, answer.reason
        headers = Headers([("Content-Type", content), ("Content-Length", str(len(body))), ("Connection", "close")])
        return Response(status, reason, headers, body)


def _described(spec: Any) -> Mapping[str, Any]:
    """A greeting's spec, where it is told as policyserve does."""
    try:
        return spec if isinstance(spec, Mapping) and spec_of(spec).leaves else {}
    except WireError:
        return {}


async def _close_as(ended: Connection, other: Connection) -> None:
    """Close a connection as the other one was closed."""
    code, reason = ended.close_code, ended.close_reason or ""
    if code is None or code in _UNSENDABLE:
        await other.close()
    else:
        await other.close(code, reason)


def _port_of(server: Server) -> int:
    return next(iter(server.sockets)).getsockname()[1]


def _shown(host: str) -> str:
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"[{host}]" if ":" in host else host
