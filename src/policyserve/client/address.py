"""Where a server is: a URL of TCP, TLS or a Unix socket, taken apart. Pure.

    ws://robot:8000              wss://robot:8000/openpi
    ws+unix:///run/policy.sock   ws+unix:///run/policy.sock:/openpi

A Unix socket's URL has the path of its dialect behind a colon, as the clients of other languages write it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from policyserve.core.errors import ConfigError

_FORMS = "ws://host:port, wss://host:port or ws+unix:///path/to/socket"
_LONGEST_PATH = 107  # bytes: what sockaddr_un holds on Linux; other systems hold a few less and say so themselves


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. url: for messages to people, without a password."""

    url: str
    http_url: str = field(repr=False)  # what the handshake asks for, password included; of a Unix socket, localhost's
    host: str
    port: int
    is_secure: bool = False
    unix_path: str | None = None


def read_address(url: str, dialect: str) -> Address:
    """Take a URL apart; one without a path of its own gets the dialect's, which spares a server the guess.

    White space around it is taken off. Raises ConfigError that shows the forms which are known, and no password.
    """
    if not isinstance(url, str):
        raise ConfigError(f"url: expected {_FORMS}, got {type(url).__name__}")
    text = url.strip()
    wrong = ConfigError(f"url: expected {_FORMS}, got {_without_password(text)!r}")
    if not text.isprintable():  # a line break within it, say, which urlsplit() would leave out without a word
        raise wrong
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # a port that is no number, or beyond 65535; half an IPv6 address
        raise wrong from None  # the cause quotes the port, which may be a part of a password
    if parts.scheme == "ws+unix":
        return _read_unix(parts, dialect, wrong)
    host = parts.hostname
    if parts.scheme not in ("ws", "wss") or not host or port == 0 or " " in text:
        raise wrong
    if not _is_name(host):
        raise wrong
    if parts.username is not None and not parts.password:
        raise ConfigError(f"url: expected ws://name:KEY@{host}, got {_without_password(text)!r}, which has no colon")
    if not parts.path.strip("/"):
        parts = parts._replace(path=f"/{dialect}")
    parts = parts._replace(fragment="")
    is_secure = parts.scheme == "wss"
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return Address(shown, parts.geturl(), host, port or (443 if is_secure else 80), is_secure)


def _is_name(host: str) -> bool:
    """Whether a name with other letters than ASCII's is one that can be looked up."""
    try:
        return host.isascii() or bool(host.encode("idna"))
    except UnicodeError:
        return False


def _read_unix(parts: SplitResult, dialect: str, wrong: ConfigError) -> Address:
    path, _, rest = parts.path.partition(":/")  # a colon alone may be part of a name
    path, http_path = unquote(path), f"/{rest}"
    if parts.netloc or not path.strip("/") or "\0" in path or " " in rest:
        raise wrong
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
        raise ConfigError(f"url: expected a socket's path of at most {_LONGEST_PATH} bytes, got {path!r}")
    if not http_path.strip("/"):
        http_path = f"/{dialect}"
    query = f"?{parts.query}" if parts.query else ""
    return Address(f"ws+unix://{path}:{http_path}", f"ws://localhost{http_path}{query}", "localhost", 80, False, path)


def _without_password(url: str) -> str:
    """A URL that may be no URL, for an error's text: what stands before the last @ may be a key."""
    before, at, behind = url.rpartition("@")
    scheme, colon, _ = before.partition("://")
    return f"{scheme + colon if colon else ''}…@{behind}" if at else url
