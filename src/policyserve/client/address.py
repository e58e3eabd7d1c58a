"""Where a server is: a URL of TCP, TLS or a Unix socket, taken apart. Pure.

    ws://robot:8000              wss://robot:8000/openpi
    ws+unix:///run/policy.sock   ws+unix:///run/policy.sock:/openpi

A Unix socket's URL has the path of its dialect behind a colon, as the clients of other languages write it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from policyserve.core.errors import ConfigError

_FORMS = "ws://host:port, wss://host:port or ws+unix:///path/to/socket"
_LONGEST_PATH = 107  # bytes: what sockaddr_un holds on Linux; other systems hold a few less and say so themselves


@dataclass(frozen=True, slots=True)
class Address:
    """A server's place. url: for messages to people, without a password."""

    url: str
    http_url: str  # what the handshake asks for; of a Unix socket, the one of localhost
    host: str
    port: int
    is_secure: bool = False
    unix_path: str | None = None


def read_address(url: str, dialect: str) -> Address:
    """Take a URL apart; one without a path of its own gets the dialect's, which spares a server the guess.

    Raises ConfigError that shows the forms which are known.
    """
    wrong = ConfigError(f"url: expected {_FORMS}, got {url!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:  # a port that is no number, or beyond 65535; half an IPv6 address
        raise wrong from error
    if parts.scheme == "ws+unix":
        return _read_unix(parts, dialect, wrong)
    host = parts.hostname
    if parts.scheme not in ("ws", "wss") or not host or port == 0:
        raise wrong
    if not parts.path.strip("/"):
        parts = parts._replace(path=f"/{dialect}")
    parts = parts._replace(fragment="")
    is_secure = parts.scheme == "wss"
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Address(shown, parts.geturl(), host, port or (443 if is_secure else 80), is_secure)


def _read_unix(parts: SplitResult, dialect: str, wrong: ConfigError) -> Address:
    path, _, rest = parts.path.partition(":/")  # a colon alone may be part of a name
    path, http_path = unquote(path), f"/{rest}"
    if parts.netloc or not path.strip("/") or "\0" in path:
        raise wrong
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
        raise ConfigError(f"url: expected a socket's path of at most {_LONGEST_PATH} bytes, got {path!r}")
    if not http_path.strip("/"):
        http_path = f"/{dialect}"
    query = f"?{parts.query}" if parts.query else ""
    return Address(f"ws+unix://{path}:{http_path}", f"ws://localhost{http_path}{query}", "localhost", 80, False, path)
