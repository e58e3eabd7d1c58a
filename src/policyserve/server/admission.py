"""Who may open a session: API keys, browsers' origins, sessions per address. Pure.

Origin: a browser says which page wants to connect, and lets any page try. A page passes if it came from this very host
and port, by an IP address or as localhost, or if its origin is allowed by name. A page that came by another name does
not: whoever owns a name can point it at this machine (DNS rebinding). Robots are no browsers and send no Origin.

Private pages: what shows camera pictures is under the same rule by the Host header, and a name passes that no public
name server knows, such as `lab-gpu` or `lab-gpu.local`.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from urllib.parse import urlsplit

from policyserve.server import routes
from policyserve.server.config import Access
from policyserve.server.handshake import Credentials
from policyserve.server.keys import ApiKeys

_CHALLENGE = (("WWW-Authenticate", 'Api-Key realm="policyserve", Bearer, Basic realm="policyserve"'),)
_LOCAL_ENDINGS = (".local", ".lan", ".internal", ".home.arpa", ".localhost")


class Admission:
    """The rules, and how many sessions each address has. `keys` may be exchanged at any time."""

    def __init__(self, access: Access) -> None:
        self.keys = ApiKeys({})
        self._origins = frozenset(origin.lower().rstrip("/") for origin in access.allowed_origins)
        self._max_sessions = access.max_sessions
        self._max_per_address = access.max_sessions_per_address
        self._sessions: Counter[str] = Counter()

    def key_name(self, credentials: Credentials) -> str | None:
        """The name of the caller's key; empty where no key is needed, None if it has none of ours."""
        return self.keys.name_of(credentials.authorization) if self.keys else ""

    def refusal(self, credentials: Credentials, address: str) -> routes.Response | None:
        """What to answer to a handshake that may not pass. address: the peer's IP address, empty on a Unix socket."""
        refusal = self.refusal_of(credentials)
        if refusal is not None:
            return refusal
        if self._sessions.total() >= self._max_sessions:
            return routes.text(503, f"{self._max_sessions} sessions are open, the most this server takes")
        if not is_local(address) and self._sessions[address] >= self._max_per_address:
            return routes.text(
                503, f"{self._max_per_address} sessions are open from {address}, the most for one address"
            )
        return None

    def refusal_of(self, credentials: Credentials) -> routes.Response | None:
        """What to answer to whoever may not ask, by its headers alone."""
        if credentials.origin and not self._is_origin_fine(credentials):
            shown = credentials.origin[:100]
            return routes.text(403, f"pages of {shown!r} may not connect; --allowed-origins {shown} lets them")
        if self.key_name(credentials) is None:
            what = "an API key that is not known here" if credentials.authorization else "an API key is needed"
            return routes.text(401, f"{what}: send `Authorization: Bearer KEY`", _CHALLENGE)
        return None

    def caller(self, credentials: Credentials) -> routes.Caller:
        """Who asks for a page, as far as its headers tell."""
        name = self.key_name(credentials)
        has_key = name is not None
        is_trusted = bool(self.keys and has_key) or self._is_host_fine(credentials.host)
        return routes.Caller(has_key, is_trusted, name in self.keys.admins, name or "")

    def enter(self, address: str) -> None:
        """Count a session of this address."""
        self._sessions[address] += 1

    def leave(self, address: str) -> None:
        """A session of this address is over."""
        self._sessions[address] -= 1
        if not self._sessions[address]:
            del self._sessions[address]

    def _is_host_fine(self, host: str) -> bool:
        """Whether a browser that asks by this name shows no stranger's page."""
        name = host.lower()
        own = {origin.partition("://")[2] for origin in self._origins}
        return _is_ip_or_localhost(name) or _is_local_name(name) or name in own

    def _is_origin_fine(self, credentials: Credentials) -> bool:
        origin = credentials.origin.lower()
        if origin in self._origins:
            return True
        scheme, _, place = origin.partition("://")
        return scheme in ("http", "https") and place == credentials.host.lower() and _is_ip_or_localhost(place)


def is_local(address: str) -> bool:
    """Whether a peer is on this machine: a Unix socket, or loopback (where a reverse proxy's peers come from, too)."""
    if not address:
        return True
    parsed = ip_address(address.partition("%")[0])
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def _is_local_name(place: str) -> bool:
    """Whether host:port is a name of the local network alone: one word, or one of the endings that nobody can buy."""
    try:
        name = (urlsplit(f"//{place}").hostname or "").rstrip(".")
    except ValueError:
        return False
    return bool(name) and ("." not in name or name.endswith(_LOCAL_ENDINGS))


def _is_ip_or_localhost(place: str) -> bool:
    """Whether host:port is an IP address or localhost, which no stranger can point elsewhere."""
    try:
        host = urlsplit(f"//{place}").hostname or ""
        return host == "localhost" or bool(ip_address(host))
    except ValueError:
        return False
