"""PROXY headers, piece by piece: what a balancer says, and what cannot be true."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from policyserve.core.errors import ConfigError
from policyserve.server.proxy_header import BadHeader, HeaderReader, Source, Trusted

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def binary(command: int = 1, family: int = 0x11, addresses: bytes | None = None, more: bytes = b"") -> bytes:
    """A header of version 2, of 192.0.2.7:5000 to 10.0.0.1:8000 unless told otherwise."""
    if addresses is None:
        addresses = socket.inet_aton("192.0.2.7") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 5000, 8000)
    body = addresses + more
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(body)) + body


SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack("!HH", 5000, 8000)
GOOD = {
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 8000\r\n": Source("192.0.2.7", 5000),
    b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 8000\r\n": Source("2001:db8::7", 5000),
    b"PROXY UNKNOWN\r\n": Source(),
    b"PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n": Source(),
    binary(): Source("192.0.2.7", 5000),
    binary(more=b"\x03\x00\x04abcd" * 20): Source("192.0.2.7", 5000),
    binary(family=0x21, addresses=SIX): Source("2001:db8::7", 5000),
    binary(command=0): Source(),
    binary(command=0, family=0, addresses=b""): Source(),
    binary(family=0x31, addresses=bytes(216)): Source(),
}
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 8000 1\r\n",
    b"PROXY TCP4 2001:db8::7 10.0.0.1 5000 8000\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 5000 8000\r\n",
    b"PROXY TCP4 192.0.2.700 10.0.0.1 5000 8000\r\n",
    b"PROXY TCP4 192.0.2.7 nobody 5000 8000\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 8000\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 8000\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 \xb2\r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 5000 8000\r\n",
    b"PROXY " + b"x" * 200,
    binary(command=2),
    binary(family=0x12),
    binary(family=0x41),
    binary(addresses=bytes(11)),
    SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
    SIGNATURE + b"\x21\x11\xff\xff" + bytes(12),
]


def read(data: bytes, cuts: list[int] | None = None) -> tuple[Source, int]:
    """The source, and how many bytes were taken; pieces end at `cuts` and where no more is wanted."""
    reader, at = HeaderReader(), 0
    stops: list[int] = sorted({*(cuts or []), len(data)})
    while reader.wanted:
        end = min(at + reader.wanted, next((stop for stop in stops if stop > at), at))
        assert end > at, "the header has an end"
        reader.feed(data[at:end])
        at = end
    return reader.source, at


@pytest.mark.parametrize("header", GOOD)
def test_a_header_tells_the_client_and_nothing_behind_it_is_taken(header: bytes) -> None:
    assert read(header + b"GET / HTTP/1.1\r\n\r\n") == (GOOD[header], len(header))


@given(some.sampled_from(sorted(GOOD)), some.lists(some.integers(1, 60), max_size=8))
def test_however_it_is_cut(header: bytes, cuts: list[int]) -> None:
    assert read(header, [cut for cut in cuts if cut < len(header)]) == (GOOD[header], len(header))


@pytest.mark.parametrize("header", BAD)
def test_what_cannot_be_true_is_refused(header: bytes) -> None:
    with pytest.raises(BadHeader, match="expected"):
        read(header)


@given(some.binary(max_size=64), some.sampled_from([b"", b"PROXY ", SIGNATURE]))
def test_any_bytes_are_a_header_or_refused_or_not_whole(data: bytes, begins: bytes) -> None:
    reader, data, at = HeaderReader(), begins + data, 0
    with suppress(BadHeader):  # and nothing else
        while reader.wanted and at < len(data):
            piece = data[at : at + reader.wanted]
            reader.feed(piece)
            at += len(piece)
    assert at <= 16 + 4096


def test_networks_and_addresses_are_trusted_and_mapped_ones_are_theirs() -> None:
    trusted = Trusted(("10.1.0.0/16", "192.0.2.7", "2001:db8::/32"))
    inside = ["10.1.255.3", "192.0.2.7", "::ffff:192.0.2.7", "2001:db8::9", ""]
    outside = ["10.2.0.1", "192.0.2.8", "::1", "127.0.0.1", "fe80::1%eth0"]
    assert [trusted.has(address) for address in [*inside, *outside]] == [True] * 5 + [False] * 5
    assert not Trusted(()).has("127.0.0.1")


@pytest.mark.parametrize("place", ["lab.example", "10.0.0.0/33", "", "10.0.0.1:80"])
def test_what_is_no_address_is_told(place: str) -> None:
    with pytest.raises(ConfigError, match="trusted_proxies: expected IP addresses and networks"):
        Trusted((place,))
