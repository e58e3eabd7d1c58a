"""The client's half of a conversation, pure: what to send, what came back, whose fault an end was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from policyserve.core.dialect import Dialect
from policyserve.core.errors import ConfigError, ConnectionLost, RemoteError
from policyserve.core.messages import Frame, Observation, Reply
from policyserve.dialects import by_name

_GONE_CODES = {1000, 1001, 1005, 1006, 1012}  # an end that is no answer to a request


class ClientSession:
    """One connection's dialect and greeting."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.metadata: Mapping[str, Any] = {}

    def greeted(self, frame: Frame) -> None:
        """Read the server's first frame, where the dialect has one."""
        self.metadata = self.dialect.read_greeting(frame)

    def request(self, observation: Observation) -> Frame:
        """The frame that asks for actions; raises WireError if the dialect cannot carry the observation."""
        return self.dialect.write_request(observation)

    def reply(self, frame: Frame) -> Reply:
        """Read an answer; raises RemoteError if the server refused, WireError if it speaks another dialect."""
        return self.dialect.read_reply(frame)


def ended(closed: Any) -> RemoteError:
    """The error for a connection that ended while a request waited. closed: websockets' ConnectionClosed."""
    received = closed.rcvd
    code, reason = (received.code, received.reason) if received else (None, "")
    if code is None or code in _GONE_CODES:
        told = f"{code} {reason}".strip() if code is not None else "no close frame"
        return ConnectionLost(f"the connection ended without an answer ({told})", code)
    return RemoteError(f"{reason or 'no reason given'} (close code {code})", code)


def address(url: str, dialect: str) -> str:
    """The URL to connect to: without a path of its own it names the dialect, which spares a server the guess.

    Raises ConfigError unless it is ws://host:port or wss://host:port, with or without a path.
    """
    wrong = ConfigError(f"url: expected ws://host:port, got {url!r}")
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # a port that is no number, or beyond 65535
        raise wrong from error
    if not is_fine:
        raise wrong
    return url if parts.path.strip("/") else parts._replace(path=f"/{dialect}").geturl()


def open_session(dialect: str) -> ClientSession:
    """A session in the named dialect; raises ConfigError that lists the known ones."""
    return ClientSession(by_name(dialect))


def connect_options(api_key: str | None, open_timeout_s: float) -> dict[str, Any]:
    """Arguments of `websockets`' connect(), sync and async alike."""
    return {
        "additional_headers": {} if api_key is None else {"Authorization": f"Api-Key {api_key}"},
        "compression": None,  # it costs ten times the transfer on images
        "max_size": None,
        "open_timeout": open_timeout_s,
        "ping_timeout": None,  # a server that thinks for a minute is not lost; every call has its own time-out
    }
