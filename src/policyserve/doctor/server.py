"""The server that is examined: where it is, and what to reach it with."""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote, urlsplit

from policyserve.client.address import Address, read_address
from policyserve.client.sockets import left_s
from policyserve.client.sync import Client
from policyserve.client.sync_link import encrypted, reach
from policyserve.core.errors import ConfigError

_PLACE = re.compile(r"^cannot connect to \S+: ")


@dataclass(frozen=True)
class Examined:
    """A server's URL and how to ask it. dialect: "auto" or a name. timeout_s: for each step.

    Raises ConfigError for what is no URL, saying which was probably meant, and for what can be no key.
    """

    url: str = field(repr=False)
    dialect: str = "auto"
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        try:
            _ = self.address
        except ConfigError as error:
            meant = _meant(self.url)
            raise ConfigError(f"{error} (did you mean {meant}?)") if meant else error from None
        self.client("openpi" if self.dialect == "auto" else self.dialect)  # it checks the key, and connects later

    @cached_property
    def address(self) -> Address:
        """Where it is; the path is the URL's own, `/` where it has none."""
        return read_address(self.url, "")

    @property
    def secrets(self) -> list[str]:
        """What must not be shown: the key, and the URL's password."""
        password = urlsplit(self.url.strip()).password or ""
        found = {self.api_key or "", password, unquote(password)}
        return sorted(filter(None, found), key=len, reverse=True)

    @property
    def authorization(self) -> str | None:
        """What a request for a page says to be let in; None without a key."""
        if self.api_key is not None:
            return f"Api-Key {self.api_key}"
        password = urlsplit(self.address.http_url).password
        return None if password is None else f"Bearer {unquote(password)}"

    def deadline(self) -> float:
        """When a step that begins now has to be over, by time.monotonic()."""
        return time.monotonic() + self.timeout_s

    def connect(self, deadline: float, context: ssl.SSLContext | None = None) -> socket.socket:
        """A new connection, with TLS where the URL says so; raises an OSError. context: None: the client's own."""
        connected = reach(self.address, deadline)
        try:
            connected.settimeout(left_s(deadline))
            return encrypted(connected, context, self.address.host, deadline) if self.address.is_secure else connected
        except BaseException:
            connected.close()
            raise

    def client(self, dialect: str, timeout_s: float | None = None) -> Client:
        """A client that tries once, and takes any actions."""
        return Client(
            self.url,
            dialect=dialect,
            api_key=self.api_key,
            timeout_s=timeout_s or self.timeout_s,
            retry_for_s=0.0,
            check_actions=False,
        )


def without_place(told: str) -> str:
    """A client's error without the URL that it begins with, which stands above all findings."""
    return _PLACE.sub("", told)


def as_websocket(url: str) -> str:
    """The WebSocket's URL that a web address, or a host and port alone, is meant for; any other text as it is."""
    text = url.strip()
    for web, ours in (("http://", "ws://"), ("https://", "wss://")):
        text = ours + text[len(web) :] if text.startswith(web) else text
    is_host = text == "localhost" or "." in text or ":" in text  # else it may be a policy's name
    return text if "://" in text or text.startswith("ws+unix:") or not is_host else f"ws://{text}"


def _meant(url: str) -> str:
    """That URL, as messages may show it; empty where nobody can tell."""
    text = as_websocket(url)
    try:
        return read_address(text, "").url.removesuffix("/") if text != url.strip() else ""
    except ConfigError:
        return ""
