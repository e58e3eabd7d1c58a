"""What both clients take when they are made: one frozen dataclass that checks itself. No socket, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from policyserve import dialects
from policyserve.client.address import GRPC, HTTP, OF_GRPC, OF_ZMQ, ZMQ, Address, read_address
from policyserve.core.dialect import Dialect, carries_jpeg, has_client
from policyserve.core.errors import ConfigError
from policyserve.transforms import jpeg

if TYPE_CHECKING:
    import ssl

    from policyserve.client.images import ImageSender

RAW = "raw"
IMAGES = (RAW, "jpeg", "auto")
_DEFAULT_DIALECT = "openpi"
_LONGEST_S = 1e6  # the system's own waits end at 24 days
_LONGEST_POLL_US = 10_000
_CLOSE_S = 1.0


@dataclass(frozen=True)
class ClientOptions:
    """A client's arguments, whose meaning `Client` tells. Raises ConfigError that names the argument, expected and got.

    White space around the URL and the key is taken off: they are read from files. A key stands in no error, no repr.
    """

    url: str = field(repr=False)
    dialect: str | None = None
    api_key: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
    timeout_s: float = 30.0
    retry_for_s: float = 10.0
    busy_poll_us: float = 0.0
    check_actions: bool = True
    dead_after_s: float | None = None
    images: str = RAW
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        known = f"one of {', '.join(dialects.client_names())}"
        if self.dialect is not None:
            is_name = isinstance(self.dialect, str) and self.dialect != ""
            _check("dialect", is_name, known, self.dialect)
            if not self._asks_by_http:
                dialects.by_name(self.dialect)  # raises ConfigError; it may be another package's
        address = self.address  # checks the URL
        if self._asks_by_http and not address.is_http:
            raise ConfigError(f"url: expected {HTTP}://host:port for the dialect {self.dialect}, got {address.url}")
        for is_other, scheme, name in ((address.is_zmq, ZMQ, OF_ZMQ), (address.is_grpc, GRPC, OF_GRPC)):
            if is_other and self.spoken != name:
                raise ConfigError(f"dialect: expected {name} with a URL of {scheme}://, got {self.spoken!r}")
        if not has_client(self.wire):
            told = "which only other programs' clients speak"
            raise ConfigError(f"dialect: expected {known}, got {self.spoken!r}, {told}")
        self._set("api_key", _read_key(self.api_key))
        self._set("timeout_s", _read_number("timeout_s", self.timeout_s, _LONGEST_S, "seconds"))
        self._set("retry_for_s", _read_number("retry_for_s", self.retry_for_s, _LONGEST_S, "seconds", may_be_0=True))
        poll_us = _read_number("busy_poll_us", self.busy_poll_us, _LONGEST_POLL_US, "microseconds", may_be_0=True)
        self._set("busy_poll_us", poll_us)
        _check("check_actions", isinstance(self.check_actions, bool), "True or False", self.check_actions)
        if self.dead_after_s is not None:
            self._set("dead_after_s", _read_number("dead_after_s", self.dead_after_s, _LONGEST_S, "seconds"))
        if self.ssl_context is not None:
            _check_tls(self.ssl_context, address)
        self._check_images()

    def __getstate__(self) -> dict[str, Any]:
        """The arguments, the key included; raises TypeError for an ssl_context, which cannot be pickled."""
        if self.ssl_context is not None:
            raise TypeError("a client with an ssl_context cannot be pickled: make one in each process")
        return vars(self).copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> ClientOptions:
        return self

    @cached_property
    def address(self) -> Address:
        """Where the server is."""
        return read_address(self.url, self.dialect or _DEFAULT_DIALECT)

    @property
    def close_s(self) -> float:
        """How long to wait for a server's close frame; a reset has the other half of its time for connecting."""
        return min(_CLOSE_S, self.timeout_s / 2)

    @cached_property
    def spoken(self) -> str:
        """The dialect's name: the one that was given, or the one of the URL's path, or openpi's."""
        if self.dialect is not None:
            return self.dialect
        named = dialects.for_path(urlsplit(self.address.http_url).path)
        return _DEFAULT_DIALECT if named is None else named.name

    @cached_property
    def wire(self) -> Dialect:
        """The dialect itself."""
        return dialects.spoken(self.spoken) if self.address.is_http else dialects.by_name(self.spoken)

    @property
    def _asks_by_http(self) -> bool:
        """Whether the dialect is one of `POST /act`; what they are called is looked up for no other one of ours."""
        name = self.dialect
        return name is not None and name not in dialects.names() and name in dialects.http_names()

    def shown(self, kind: str, session: int, is_open: bool) -> str:
        """The repr of a client: where it connects, what it speaks, and the number of its last session, 0 for none."""
        state = f"session {session}, {'open' if is_open else 'closed'}" if session else "not connected"
        return f"<policyserve.{kind} {self.address.url} {self.spoken}, {state}>"

    @property
    def may_encode(self) -> bool:
        """Whether images may be sent as JPEG, if the server takes them."""
        return self.images != RAW and carries_jpeg(self.wire)

    def _check_images(self) -> None:
        _check("images", self.images in IMAGES, ", ".join(map(repr, IMAGES)), self.images)
        is_whole = isinstance(self.jpeg_quality, int) and not isinstance(self.jpeg_quality, bool)
        _check("jpeg_quality", is_whole and 1 <= self.jpeg_quality <= 100, "1 … 100", self.jpeg_quality)
        if self.images != "jpeg":
            return
        if not self.may_encode:
            raise ConfigError(f"images: expected 'raw' for {self.spoken}, whose messages carry no JPEG, got 'jpeg'")
        jpeg.require()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _check(name: str, is_fine: bool, expected: str, got: object) -> None:
    if not is_fine:
        raise ConfigError(f"{name}: expected {expected}, got {got!r:.80}")


def _read_number(name: str, value: Any, most: float, unit: str, *, may_be_0: bool = False) -> float:
    """A finite number of a unit, as a float."""
    expected = f"{unit}, {'0 or more' if may_be_0 else 'more than 0'} and at most {most:.0f}"
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    number: Any = value if is_number else -1.0
    _check(name, 0 < number <= most or (may_be_0 and number == 0), expected, value)
    return float(number)


def _read_key(key: Any) -> str | None:
    """The key without white space around it; never quotes it."""
    if key is None:
        return None
    if not isinstance(key, str):
        raise ConfigError(f"api_key: expected a text, got {type(key).__name__}")
    key = key.strip()
    if not key:
        raise ConfigError("api_key: expected a key, got an empty text; None stands for no key")
    if not (key.isascii() and key.isprintable()):
        others = sum(not (letter.isascii() and letter.isprintable()) for letter in key)
        raise ConfigError(f"api_key: expected printable ASCII characters, got {others} of {len(key)} that are none")
    return key


def _check_tls(context: Any, address: Address) -> None:
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise ConfigError(f"ssl_context: expected an ssl.SSLContext, got {type(context).__name__}")
    if not address.is_secure:
        raise ConfigError(f"ssl_context: expected a wss:// URL with it, got {address.url}, which nothing encrypts")


def image_sender(options: ClientOptions) -> ImageSender | None:
    """What a client does with its pictures; None: nothing, they are sent as they are."""
    if options.images == RAW:
        return None
    from policyserve.client.images import ImageSender  # a client that sends them raw needs nothing of it

    return ImageSender(options.images, options.jpeg_quality, options.address.url)
