"""Reads which port is for which policy: `place=5556`. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from policyserve.core.errors import ConfigError


def read_named_ports(setting: str, words: Iterable[str]) -> dict[str, int]:
    """The port of each name; 0 is any free one. setting: what to blame; raises ConfigError."""
    ports: dict[str, int] = {}
    for word in words:
        name, equals, number = word.partition("=")
        if not equals or not name or not (number.isascii() and number.isdecimal() and int(number[:6]) <= 65535):
            raise ConfigError(f"{setting}: expected NAME=PORT, with a port from 0 to 65535, got {word!r}")
        if name in ports:
            raise ConfigError(f"{setting}: expected each name once, got {name} twice")
        ports[name] = int(number)
    return ports
