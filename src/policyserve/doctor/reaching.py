"""Whether the server's machine can be reached: its name, a connection, and TLS."""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError

from policyserve.client.address import Address
from policyserve.client.connecting import is_address, look_up
from policyserve.client.sockets import left_s
from policyserve.client.sync_link import encrypted, reach
from policyserve.doctor.certificates import Certificate, certificate_of, presented
from policyserve.doctor.findings import Finding, broken, ok, warning
from policyserve.doctor.server import Examined

_DAYS_LEFT = 14  # a certificate with less needs a person soon
_NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_EXPIRED, _NOT_YET = 10, 9  # OpenSSL's numbers
_OTHER_NAMES = (62, 64)


def reaching(server: Examined) -> Iterator[Finding]:
    """Look the name up, connect, and speak TLS; ends behind the first that is broken."""
    for check in (_name, _connection, _tls):
        found = check(server)
        if found is not None:
            yield found
            if found.verdict == "broken":
                return


def _name(server: Examined) -> Finding | None:
    host = server.address.host
    if server.address.unix_path is not None or is_address(host):
        return None
    cure = "mend the name in the URL, or give the machine's address: ws://192.168.…"
    try:
        places = look_up(host, server.address.port).result(left_s(server.deadline()))
    except FutureTimeoutError:
        told = f"no name service told the address of {host} within {server.timeout_s:g} s"
        return broken("name", told, "look at this machine's network, or give the server's address: ws://192.168.…")
    except (OSError, UnicodeError) as error:
        return broken("name", f"nobody knows a machine called {host} ({_reason(error)})", cure)
    addresses = list(dict.fromkeys(str(place[-1][0]) for place in places))
    return ok("name", f"{host} is {', '.join(addresses)}", addresses=addresses)


def _connection(server: Examined) -> Finding:
    place, began = _place(server.address), time.perf_counter()
    try:
        reach(server.address, server.deadline()).close()
    except (OSError, UnicodeError) as error:
        is_ours = isinstance(error, TimeoutError) and error.errno is None
        told = f"nothing within {server.timeout_s:g} s" if is_ours else _reason(error)
        return broken("connection", f"{place}: {told}", _connection_cure(server.address, error))
    took_ms = (time.perf_counter() - began) * 1e3
    return ok("connection", f"{place} answers, {took_ms:.1f} ms", connect_ms=took_ms)


def _place(address: Address) -> str:
    return address.unix_path or f"{address.host} port {address.port}"


def _connection_cure(address: Address, error: Exception) -> str:
    if address.unix_path is not None:
        if isinstance(error, PermissionError):
            return "the socket is for the server's own user (mode 0600): connect as that user"
        return f"start the server with --uds {address.unix_path}, or mend the path in the URL"
    if isinstance(error, ConnectionRefusedError):
        listen = "--host 127.0.0.1 takes clients of its own machine alone"
        return f"nothing listens there: start the server, or mend the port in the URL; {listen}"
    if getattr(error, "errno", None) in _NO_WAY:
        return "this machine has no way there: is it in the same network, and is the server's machine on?"
    return "the machine is off, or a firewall drops what comes: open the port there, or try from the machine itself"


def _tls(server: Examined) -> Finding | None:
    if not server.address.is_secure:
        return None
    deadline = server.deadline()
    try:
        with reach(server.address, deadline) as plain:
            plain.settimeout(left_s(deadline))
            with encrypted(plain, None, server.address.host, deadline) as connected:
                return _trusted(server.address, connected)  # type: ignore[arg-type]
    except ssl.SSLCertVerificationError as error:
        return _untrusted(server, error)
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
            return broken("tls", "what answers there speaks no TLS", "write ws:// in place of wss://")
        return broken("tls", f"no TLS: {_reason(error)}", "ask whoever runs the server, or its proxy, which TLS it has")
    except TimeoutError:
        told = f"no TLS within {server.timeout_s:g} s"
        return broken("tls", told, "what listens there may be no server with TLS: try ws://")
    except OSError as error:
        return broken("tls", f"the connection ended within TLS ({_reason(error)})", "try ws://: it may have no TLS")


def _trusted(address: Address, connected: ssl.SSLSocket) -> Finding:
    certificate = certificate_of(connected)
    told = f"{connected.version()}; the certificate is trusted, for {certificate.told_names}"
    figures = {"version": connected.version(), **certificate.figures}
    if certificate.days_left < _DAYS_LEFT:
        days = f"and ends in {certificate.days_left} days"
        return warning("tls", f"{told}, {days}", "have a new certificate made, and start the server with it", **figures)
    return ok("tls", f"{told}, until {certificate.until}", **figures)


def _untrusted(server: Examined, error: ssl.SSLCertVerificationError) -> Finding:
    certificate, code = presented(server), error.verify_code
    if certificate is None:
        return broken("tls", f"the certificate is not trusted: {error.verify_message}", _trust_cure(server, None))
    told, cure = f"the certificate is not trusted: {error.verify_message}", _trust_cure(server, certificate)
    if code == _EXPIRED or certificate.days_left < 0:  # of one that nobody signed OpenSSL tells that first
        told = f"the certificate ended on {certificate.until}"
        cure = "have a new one made, and start the server with it; is this machine's own clock right?"
    elif code == _NOT_YET:
        told = f"the certificate begins on {certificate.since}"
        cure = "this machine's clock, or that of the one that made the certificate, is wrong"
    elif code in _OTHER_NAMES:
        told = f"the certificate is for {certificate.told_names}, not for {server.address.host}"
        cure = f"connect by such a name, or have one made for {server.address.host}"
    return broken("tls", told, cure, **certificate.figures)


def _trust_cure(server: Examined, certificate: Certificate | None) -> str:
    """What to do where nobody who is trusted here has signed it."""
    signer = "" if certificate is None else f", which {certificate.issuer} has signed"
    return f"if you know this certificate{signer}: SSL_CERT_FILE=ca.pem in the environment has it trusted"


def _reason(error: BaseException) -> str:
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return told[:1].lower() + told[1:] if told[1:2].islower() else told
