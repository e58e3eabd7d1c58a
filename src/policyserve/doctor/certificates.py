"""A server's certificate, also one that nobody trusts: its names, who signed it, and how long it holds."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast

from policyserve.doctor.server import Examined

_PARTIAL_CHAIN, _NO_CHECK_TIME = 0x80000, 0x200000  # X509_V_FLAG_… of OpenSSL
_MOST_NAMES = 6


@dataclass(frozen=True)
class Certificate:
    """What people need to know of one. begins, ends: seconds since 1970."""

    names: tuple[str, ...]
    issuer: str
    begins: float
    ends: float

    @property
    def told_names(self) -> str:
        """The first of the names that it is for."""
        more = len(self.names) - _MOST_NAMES
        return ", ".join(self.names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "") or "no name"

    @property
    def days_left(self) -> int:
        """Whole days until it ends."""
        return int((self.ends - time.time()) // 86400)

    @property
    def since(self) -> str:
        """The day on which it begins."""
        return _day(self.begins)

    @property
    def until(self) -> str:
        """The day on which it ends."""
        return _day(self.ends)

    @property
    def figures(self) -> dict[str, Any]:
        """The same for programs."""
        days = {"begins": self.since, "ends": self.until, "days_left": self.days_left}
        return {"names": list(self.names), "issuer": self.issuer, **days}


def certificate_of(connected: ssl.SSLSocket) -> Certificate:
    """The certificate of a server that this connection's context trusts."""
    told: dict[str, Any] = connected.getpeercert() or {}
    names = tuple(name for _, name in told.get("subjectAltName", ()))
    begins, ends = (ssl.cert_time_to_seconds(told[key]) for key in ("notBefore", "notAfter"))
    return Certificate(names, " ".join(_names_in(told.get("issuer", ()))) or "nobody", begins, ends)


def presented(server: Examined) -> Certificate | None:
    """The certificate that a server shows, trusted or not; None where it cannot be read.

    Nothing is sent to the server but TLS. Python reads only certificates that are trusted, so that a second connection
    trusts the one that the first was shown.
    """
    with suppress(OSError, ValueError, KeyError):
        context = _context()
        context.verify_mode = ssl.CERT_NONE
        with _speaking(server, context) as connected:
            shown = connected.getpeercert(binary_form=True)
        if shown is None:
            return None
        context = _context()
        context.verify_flags |= ssl.VerifyFlags(_PARTIAL_CHAIN | _NO_CHECK_TIME)
        context.load_verify_locations(cadata=shown)
        with _speaking(server, context) as connected:
            return certificate_of(connected)
    return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return context


def _speaking(server: Examined, context: ssl.SSLContext) -> ssl.SSLSocket:
    return cast(ssl.SSLSocket, server.connect(server.deadline(), context))


def _names_in(name: Any) -> Iterator[str]:
    """The common name and organisation of a distinguished name."""
    for part in name:
        for key, value in part:
            if key in ("commonName", "organizationName"):
                yield value


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")
