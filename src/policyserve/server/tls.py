"""TLS: certificates, loaded before the server listens and again on a signal, and the handshake of one connection."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import cast

from policyserve.core.errors import ConfigError
from policyserve.core.events import Event
from policyserve.core.throttle import Rate, Throttle, suppressed_note
from policyserve.server.listener import peer_of, take_socket
from policyserve.server.proxied import Inside
from policyserve.server.reception import Reception

_REASONS = {
    "HTTP_REQUEST": "the client speaks plain HTTP; it needs wss:// or https://",
    "WRONG_VERSION_NUMBER": "the client speaks no TLS; it needs wss:// or https://",
    "UNSUPPORTED_PROTOCOL": "the client's TLS is older than 1.2",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust this certificate; give it the CA's",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not trust this certificate; give it the CA's",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not take this certificate; is it made for this host's name?",
}  # fmt: skip

OF_ONE_FAILURE = Rate(burst=1, per_s=1 / 60)  # a client that tries again fails in the same way, thirty times in 10 s


class TlsConnection(asyncio.Protocol):
    """Shakes hands by TLS, and then hands the connection to `inside`.

    asyncio's own TLS servers neither tell why a handshake failed nor know of those that are under way, which must be
    bounded and end with the server. So a connection comes in plain, and its socket is taken over by another transport.

    failures: of all connections, by address and reason; it lets few of their lines into the log.
    """

    def __init__(
        self, reception: Reception, inside: Inside, context: ssl.SSLContext, timeout_s: float, failures: Throttle
    ) -> None:
        self.number = inside.number
        self.address, self.peer = "", ""
        self._stands_for: tuple[str, str] | None = None
        self._reception = reception
        self._inside = inside
        self._context = context
        self._timeout_s = timeout_s
        self._failures = failures
        self._shaking: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.address, self.peer = self._stands_for or peer_of(transport)
        connected = take_socket(transport)
        self._shaking = asyncio.get_running_loop().create_task(self._shake_hands(connected))
        self._reception.enter(self)

    def stand_for(self, address: str, peer: str) -> None:
        """See Inside of server/proxied.py."""
        self._stands_for = address, peer
        self._inside.stand_for(address, peer)

    def abort(self) -> None:
        """End the handshake."""
        if self._shaking is not None:
            self._shaking.cancel()

    async def _shake_hands(self, connected: socket.socket) -> None:
        connect = asyncio.get_running_loop().connect_accepted_socket
        try:
            inside = cast(asyncio.BaseProtocol, self._inside)
            await connect(lambda: inside, connected, ssl=self._context, ssl_handshake_timeout=self._timeout_s)
        except OSError as error:  # a stranger's bytes, or silence
            self._reception.leave(self)
            reason = explain(error)
            self._note(reason)
            self._reception.on_refused(self.peer, "tls", reason)

    def _note(self, reason: str) -> None:
        suppressed = self._failures.passes((self.address, reason), time.monotonic())
        if suppressed is not None:
            told = reason + suppressed_note(suppressed)
            text, event = "a TLS handshake failed peer=%s: %s", Event("handshake_failed", peer=self.peer)
            self._reception.note(self.address, logging.WARNING, "tls", text, self.peer, told, event=event)


def load(cert: str, key: str) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer; raises ConfigError in one line if the files are not a pair.

    cert: a PEM file, the server's own certificate first, then those between it and the CA. key: its private key, PEM,
    without a passphrase.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # No TLS 1.3 session tickets. They come when a client has begun to send: `websockets`' synchronous client, which is
    # openpi's, then reads them in one thread while it writes its request in another, and one connection in some three
    # hundred never sends that request. Tickets would only spare a robot a few milliseconds when it connects again.
    context.num_tickets = 0
    _load_chain(context, cert, key)
    return context


def explain(error: OSError) -> str:
    """What a failed handshake, or a refused certificate, means."""
    reason = getattr(error, "reason", None) or str(error) or "the peer went away"
    return _REASONS.get(reason, reason)


def reload(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Have `context` use the files as they are now, for new connections; raises ConfigError and changes nothing."""
    load(cert, key)  # first into another: a wrong pair would leave the context with half of it
    _load_chain(context, cert, key)


def _load_chain(context: ssl.SSLContext, cert: str, key: str) -> None:
    for name, path, what in (("tls_cert", cert, b"CERTIFICATE-----"), ("tls_key", key, b"PRIVATE KEY-----")):
        try:
            content = Path(path).read_bytes()
            if b"-----BEGIN" not in content:
                raise ConfigError(f"{name}: expected a PEM file, which has a line -----BEGIN …, got {path}")
            if what not in content:
                raise ConfigError(f"{name}: expected a PEM file with a line -----BEGIN … {what.decode()}, got {path}")
        except OSError as error:
            raise ConfigError(f"{name}: {path} cannot be read: {error.strerror}") from error
    try:
        context.load_cert_chain(cert, key, password=_refuse_passphrase)
    except OSError as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"tls_key: {key} is not the key of the certificate in {cert}") from error
        raise ConfigError(f"tls_cert: {cert} and its key {key} are no certificate and key: {error}") from error


def _refuse_passphrase() -> str:
    raise ConfigError("tls_key: expected a key without a passphrase, got an encrypted one; `openssl pkey` decrypts it")
