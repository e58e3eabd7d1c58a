"""The PROXY protocol's header, versions 1 and 2, in which a load balancer says whose connection it passes on. Pure.

From HAProxy's specification of 2020/03/05 (2.1 and 2.2). It is read to its last byte and not beyond: what comes
behind it is the client's, and may be a TLS handshake.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from policyserve.core.errors import ConfigError

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_SHORTEST = 15  # bytes, "PROXY UNKNOWN\r\n": a reader never takes one too many
_LONGEST_LINE = 107
_FIXED = 16  # bytes of version 2 before the addresses
_MOST_BEHIND = 4096  # bytes of addresses and of what else a balancer tells; the format has room for 65,535
_LOCAL, _PROXY = 0, 1
_IPV4, _IPV6, _UNIX, _UNSPECIFIED = 1, 2, 3, 0
_STREAM = 1


class Source(NamedTuple):
    """Whose connection it is; empty: the balancer's own, such as a health check."""

    host: str = ""
    port: int = 0


class BadHeader(ValueError):
    """Not a PROXY header, or one that cannot be true."""


class HeaderReader:
    """Takes a header piece by piece. wanted: how many bytes it may be given next; 0 once `source` is known."""

    def __init__(self) -> None:
        self.wanted = _SHORTEST
        self.source = Source()
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take up to `wanted` bytes; raises BadHeader."""
        self._data += data
        if self._data.startswith(_SIGNATURE[: len(self._data)]):
            self._feed_binary()
        elif self._data.startswith(b"PROXY "[: len(self._data)]):
            self._feed_line()
        else:
            raise BadHeader(f"expected a PROXY header, got {self._data[:16]!r}")

    def _feed_line(self) -> None:
        if not self._data.endswith(b"\r\n"):
            if len(self._data) >= _LONGEST_LINE:
                raise BadHeader(f"expected a line of at most {_LONGEST_LINE} bytes, got no end of it")
            self.wanted = max(_SHORTEST - len(self._data), 1)
            return
        self.wanted = 0
        words = self._data[:-2].decode("ascii", "replace").split(" ")
        if words[1] == "UNKNOWN":
            return
        if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
            raise BadHeader(f"expected PROXY TCP4|TCP6 source destination port port, got {' '.join(words)[:80]!r}")
        kind = IPv4Address if words[1] == "TCP4" else IPv6Address
        _address(words[3], kind)
        _port(words[5])
        self.source = Source(str(_address(words[2], kind)), _port(words[4]))

    def _feed_binary(self) -> None:
        if len(self._data) < _FIXED:
            self.wanted = _FIXED - len(self._data)
            return
        version, family, length = struct.unpack("!BBH", self._data[12:_FIXED])
        if version >> 4 != 2 or version & 15 > _PROXY:
            raise BadHeader(f"expected version 2 and a command of 0 or 1, got {version:#04x}")
        if length > _MOST_BEHIND:
            raise BadHeader(f"expected at most {_MOST_BEHIND} bytes of addresses, got {length}")
        self.wanted = _FIXED + length - len(self._data)
        if self.wanted or version & 15 == _LOCAL:
            return
        kind, transport = family >> 4, family & 15
        if kind in (_UNSPECIFIED, _UNIX):
            return
        size = {_IPV4: 4, _IPV6: 16}.get(kind)
        if size is None or transport != _STREAM:
            raise BadHeader(f"expected TCP over IPv4 or IPv6, got {family:#04x}")
        if length < 2 * size + 4:
            raise BadHeader(f"expected {2 * size + 4} bytes of addresses, got {length}")
        (port,) = struct.unpack_from("!H", self._data, _FIXED + 2 * size)
        self.source = Source(str(ip_address(self._data[_FIXED : _FIXED + size])), port)


class Trusted:
    """The balancers that may say whose connection it is: addresses and networks, `10.0.0.7`, `10.1.0.0/16`.

    Raises ConfigError for what is neither.
    """

    def __init__(self, places: tuple[str, ...]) -> None:
        self._networks = [_network(place) for place in places]

    def has(self, address: str) -> bool:
        """Whether a peer of this IP address is one; empty: a Unix socket's, which its owner alone can reach."""
        if not address:
            return True
        parsed = ip_address(address.partition("%")[0])
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._networks if network.version == parsed.version)


def _network(place: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(place, strict=False)
    except ValueError as error:
        told = f"trusted_proxies: expected IP addresses and networks such as 10.0.0.7 or 10.1.0.0/16, got {place!r}"
        raise ConfigError(told) from error


def _address(text: str, kind: type[IPv4Address] | type[IPv6Address]) -> IPv4Address | IPv6Address:
    try:
        return kind(text)
    except ValueError as error:
        raise BadHeader(f"expected an {kind.__name__}, got {text[:60]!r}") from error


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 1 << 16):
        raise BadHeader(f"expected a port, got {text[:20]!r}")
    return int(text)
