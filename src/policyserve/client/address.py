"""Where a server is: a URL of TCP, TLS or a Unix socket, taken apart. Pure.

    ws://robot:8000              wss://robot:8000/openpi
    ws+unix:///run/policy.sock   ws+unix:///run/policy.sock:/openpi
    zmq://robot:5555             a server of GR00T's
    http://robot:8000            one that is asked by `POST /act`
    grpc://robot:8080/act        one of LeRobot's, and the name of the policy that it is to answer with

A Unix socket's URL has the path of its dialect behind a colon, as the clients of other languages write it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from policyserve.core.errors import ConfigError

# As errors of clients spell it; naming_variables() has it otherwise.
HOW_TO_GIVE_A_KEY = "api_key=…"
OR_IN_PYTHON = ", or ssl_context=ssl.create_default_context(cafile=…),"
ZMQ, OF_ZMQ = "zmq", "gr00t"  # a scheme, and the dialect that is spoken there
GRPC, OF_GRPC = "grpc", "lerobot"
HTTP = "http"
_FORMS = "ws://host:port, wss://host:port or ws+unix:///path/to/socket"
_LONGEST_PATH = 107  # bytes: what sockaddr_un holds on Linux; other systems hold a few less and say so themselves
_SCHEME = re.compile(r"ws\+unix:(?://)?|[A-Za-z][A-Za-z0-9+.-]*://|")
_AT_SIGNS = re.compile("[@\ufe6b\uff20]")  # with the two that Unicode takes for the same sign
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]*(?:%\w+)?\]?(?![^:/?#])|[^:/?#]*)(:\d{0,5}(?![^/?#]))?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. url: for messages to people, without a password and the values of a query."""

    url: str
    http_url: str = field(repr=False)  # what the handshake asks for, password included; of a Unix socket, localhost's
    host: str
    port: int
    is_secure: bool = False
    unix_path: str | None = field(default=None, repr=False)  # url has it
    is_zmq: bool = False  # ZeroMQ, which GR00T's servers speak, in place of a WebSocket
    is_http: bool = False  # `POST /act`, in place of a WebSocket
    is_grpc: bool = False  # gRPC, which LeRobot's servers speak
    policy: str = ""  # that a server of LeRobot's is to answer with


def read_address(url: str, dialect: str) -> Address:
    """Take a URL apart; one without a path of its own gets the dialect's, which spares a server the guess.

    White space around it is taken off. Raises ConfigError that shows the forms which are known, and no password.
    """
    if not isinstance(url, str):
        raise ConfigError(f"url: expected {_FORMS}, got {type(url).__name__}")
    text = url.strip()
    wrong = ConfigError(f"url: expected {_FORMS}, got {without_key(text)!r}")
    parts = _split(text)
    if parts is None:
        raise wrong
    if parts.scheme == "ws+unix":
        return _read_unix(parts, dialect, wrong)
    host = parts.hostname
    if parts.scheme == ZMQ and host and parts.port and parts.path in ("", "/") and _is_name(host) and "@" not in text:
        shown = f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}"
        return Address(f"{ZMQ}://{shown}", f"ws://{shown}/{OF_ZMQ}", host, parts.port, is_zmq=True)
    if parts.scheme == GRPC and host and parts.port and _is_name(host) and "@" not in text:
        shown, policy = f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}", unquote(parts.path[1:])
        url = f"{GRPC}://{shown}{parts.path}"
        return Address(url, f"ws://{shown}/{OF_GRPC}", host, parts.port, is_grpc=True, policy=policy)
    is_http = parts.scheme == HTTP and _asks_by_http(dialect)
    if not (is_http or parts.scheme in ("ws", "wss")) or not host or parts.port == 0 or " " in text:
        raise wrong
    if not _is_name(host):
        raise wrong
    if parts.username is not None and not parts.password:
        raise ConfigError(f"url: expected ws://name:KEY@host, got {without_key(text)!r}, which has no colon")
    if not parts.path.strip("/"):
        parts = parts._replace(path="/act" if is_http else f"/{dialect}")
    parts = parts._replace(fragment="")
    is_secure = parts.scheme == "wss"
    shown = without_key(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    port = parts.port or (443 if is_secure else 80)
    return Address(shown, parts.geturl(), host, port, is_secure, is_http=is_http)


def has_key(url: str) -> bool:
    """Whether a URL brings a password of its own."""
    parts = _split(url.strip())
    return parts is not None and bool(parts.password)


def first_key(keys: str) -> str:
    """The first key of what POLICYSERVE_API_KEY holds, `name:key,name2:key2` or one key: those that a server takes."""
    return keys.partition(",")[0].rpartition(":")[2].strip()


def without_key(text: str) -> str:
    """A URL, or what was meant for one, as errors, logs and tables may show it: what may be a key is left out.

    Left out is what stands before the last @, since a key may hold any character; what follows a host's colon and is no
    port, since the @ may have been forgotten; and what a query says. A Unix socket's path is shown if it has no colon
    before its @, as a name of a file may have one.
    """
    found = _SCHEME.match(text)
    scheme = found.group() if found else ""
    is_unix = scheme.startswith("ws+unix:")
    *before, behind = _AT_SIGNS.split(text[len(scheme) :])
    if is_unix and not any(":" in part for part in before):
        before, behind = [], text[len(scheme) :]
    host = None if before or is_unix else _HOST_AND_PORT.match(behind)
    if host is not None and behind[host.end() :].startswith(":"):
        behind = f"{host.group(1)}:…"
    shown, question_mark, _ = behind.partition("?")
    return f"{scheme}{'…@' if before else ''}{shown}{'?…' if question_mark else ''}"


def _split(text: str) -> SplitResult | None:
    """The URL's parts; None for what is no URL. What Python's error says of it is dropped: it quotes a password."""
    if not text.isprintable():  # a line break within it, say, which urlsplit() would leave out without a word
        return None
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:  # a port that is no number, or beyond 65535; half an IPv6 address
        return None
    return parts


def _asks_by_http(dialect: str) -> bool:
    from policyserve import dialects  # with NumPy, which who only asks for a key does without

    return dialect in dialects.http_names()


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
        raise ConfigError(
            f"url: expected a socket's path of at most {_LONGEST_PATH} bytes, got {without_key(f'ws+unix://{path}')!r}"
        )
    if not http_path.strip("/"):
        http_path = f"/{dialect}"
    query = f"?{parts.query}" if parts.query else ""
    shown = without_key(f"ws+unix://{path}:{http_path}{query}")
    return Address(shown, f"ws://localhost{http_path}{query}", "localhost", 80, False, path)


def naming_variables(message: str, key_variable: str) -> str:
    """A client's error in a command's words: it takes from the environment what a program gives in Python."""
    return message.replace(HOW_TO_GIVE_A_KEY, f"set {key_variable}").replace(OR_IN_PYTHON, "")
