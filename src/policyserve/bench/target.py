"""The server to drive: one that runs somewhere, or one that is started for the measurement in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from policyserve import dialects
from policyserve.bench.tally import first_line
from policyserve.client.address import GRPC, HTTP, OF_GRPC, OF_ZMQ, ZMQ, without_key
from policyserve.client.sync import Client
from policyserve.core.errors import (
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    NotReady,
    PolicyserveError,
    RemoteError,
    WireError,
)
from policyserve.core.messages import Observation, Reply
from policyserve.dialects.recognition import family_of_greeting

_GREETING_S = 3.0  # an `auto` server greets a client that stays silent after 2 s at the latest
_STOP_S = 15.0
_ACT = "/act"
_URL = re.compile(r"^ *url +(\S+)", re.MULTILINE)
_LEROBOT = re.compile(r"^ *lerobot +(\S+)", re.MULTILINE)
_ASKED_FOR_BY = re.compile(r"--pretrained_name_or_path='([^']+)'")  # in its log


@dataclass(frozen=True)
class Place:
    """Where a server is. url: to drive. told_at: whose greeting to openpi's clients tells its spec; empty: nobody's."""

    url: str
    told_at: str = ""


@dataclass(frozen=True)
class Seen:
    """What a server showed of itself: the dialect to speak and its greeting, empty where it has none."""

    dialect: str
    metadata: Mapping[str, Any]


def is_url(name: str) -> bool:
    """Whether `name` is a server's address and not a policy's name."""
    return "://" in name and not name.startswith("remote:")


def place_of(url: str, dialect: str) -> Place:
    """Where a server is asked in a dialect: by HTTP, at the port of its WebSockets, if it is one of `POST /act`.

    Raises ConfigError where URL and dialect do not go together.
    """
    parts, families = urlsplit(url), dialects.http_names()
    if parts.scheme == HTTP and dialect not in families:
        raise ConfigError(f"--dialect: expected {', '.join(families)} with a URL of {HTTP}://, got {dialect!r}")
    if parts.scheme == HTTP:
        return Place(url, parts._replace(scheme="ws", path=parts.path.removesuffix(_ACT)).geturl())
    if parts.scheme == "ws" and dialect in families:
        return Place(parts._replace(scheme=HTTP, path=parts.path.rstrip("/") + _ACT).geturl(), url)
    return Place(url, url.removesuffix(f"/{dialect}") if parts.scheme.startswith("ws") else "")


@contextmanager
def running(name: str, serve_flags: Sequence[str] = (), dialect: str = "auto") -> Iterator[Place]:
    """Where the server called `name` is; of a policy, one is started on a free port of this machine, and ended.

    For LeRobot's dialect it has a port of LeRobot's, too. Raises NotReady with the server's own complaint if it does
    not start.
    """
    if is_url(name):
        yield place_of(name, dialect)
        return
    command = [sys.executable, "-u", "-m", "policyserve.cli", "serve", name, "--host", "127.0.0.1", "--port", "0"]
    command += ["--lerobot", "0"] if dialect == OF_GRPC and "--lerobot" not in serve_flags else []
    with tempfile.TemporaryFile("a+", encoding="utf-8") as said:
        # A session of its own: Ctrl-C is for the measurement, whose end is the server's.
        process = subprocess.Popen(
            [*command, *serve_flags], text=True, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
        try:
            screen = _wait_for_screen(process)
            said.seek(0)
            log = said.read()
            if not screen:
                raise NotReady(f"the server of {name} did not start: {_last_line(log)}")
            yield _place_on(screen, log, dialect)
        finally:
            _end(process)


@dataclass(frozen=True)
class Peek:
    """Looks at a server before it is driven. Both methods raise errors of one line."""

    url: str = field(repr=False)
    told_at: str = field(repr=False)  # as a Place's
    timeout_s: float
    api_key: str | None = field(default=None, repr=False)

    def look(self, dialect: str, needs_greeting: bool) -> Seen:
        """Find out what the server speaks; dialect "auto": by its greeting, where the URL's path does not name one.

        needs_greeting: also look at how a server greets others where this dialect tells no spec: one of ours tells it.
        A server that does not greet is taken for vibe_rl's. Raises RemoteError if the greeting is no policy server's.
        """
        if self.url.startswith(f"{ZMQ}://") and dialect in ("auto", OF_ZMQ):
            return Seen(OF_ZMQ, {})  # it tells no spec
        if self.url.startswith(f"{GRPC}://") and dialect in ("auto", OF_GRPC):
            return self._reached(OF_GRPC, needs_greeting)
        if self.url.startswith(f"{HTTP}://"):
            return self._reached(dialect, needs_greeting)
        named = dialects.for_path(urlsplit(self.url).path.rpartition(":")[2])
        wanted = dialect if dialect != "auto" or named is None else named.name
        if wanted == "vibe_rl" and not needs_greeting:
            return Seen(wanted, {})
        asked = "openpi" if wanted in ("auto", "vibe_rl") else wanted
        url = self.url.removesuffix("/vibe_rl") if asked != wanted else self.url
        try:
            with self._client(url, asked, min(self.timeout_s, _GREETING_S)) as client:
                metadata = client.metadata
        except DeadlineExceeded as error:
            if wanted not in ("auto", "vibe_rl") or "handshake" in str(error):
                raise
            return Seen("vibe_rl", {})
        except WireError as error:
            raise RemoteError(f"{without_key(self.url)} greets as no policy server does: {error}") from error
        if wanted != "auto":
            is_told = "spec" in metadata or not needs_greeting
            return Seen(wanted, metadata if is_told else {**self._told_to_others(), **metadata})
        return Seen(family_of_greeting(metadata), metadata)

    def _reached(self, dialect: str, needs_greeting: bool) -> Seen:
        """A server that does not greet, once it is clear that there is one."""
        with self._client(self.url, dialect, self.timeout_s):
            return Seen(dialect, self._told_to_others() if needs_greeting else {})

    def _told_to_others(self) -> Mapping[str, Any]:
        """What the server says to openpi's clients; nothing if it is not one of ours."""
        if self.told_at:
            timeout_s = min(self.timeout_s, _GREETING_S)
            with suppress(PolicyserveError), self._client(self.told_at, "openpi", timeout_s) as client:
                return client.metadata
        return {}

    def ask(self, dialect: str, observation: Observation) -> Reply:
        """Make one request as it will be sent; raises RemoteError that says what was refused."""
        try:
            with self._client(self.url, dialect, self.timeout_s) as client:
                return client.infer(observation)
        except WireError as error:
            raise RemoteError(f"{without_key(self.url)} and {dialect}: {error}") from error
        except RemoteError as error:
            if isinstance(error, ConnectionLost):
                raise
            raise RemoteError(f"{without_key(self.url)} refuses the payload: {first_line(str(error))}") from error

    def _client(self, url: str, dialect: str, timeout_s: float) -> Client:
        return Client(url, dialect=dialect, timeout_s=timeout_s, api_key=self.api_key, retry_for_s=0.0)


def _wait_for_screen(process: subprocess.Popen[str]) -> str:
    """What the server prints until it is ready, at most a screen; empty if it ended before."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready"):
            return "".join(lines)
    process.wait()
    return ""


def _place_on(screen: str, log: str, dialect: str) -> Place:
    """Where a server is that printed this screen when it was ready, and wrote this log."""
    found, lerobot, name = _URL.search(screen), _LEROBOT.search(screen), _ASKED_FOR_BY.search(log)
    assert found is not None, "a server that is ready has an address"
    url = found.group(1)
    if dialect != OF_GRPC or lerobot is None:
        return place_of(url, dialect)
    return Place(f"{GRPC}://{lerobot.group(1)}/{quote(name.group(1) if name else '')}", url)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip().removeprefix("error: ") if lines else "it says nothing"
