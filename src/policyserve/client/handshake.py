"""How a connection begins: one HTTP request, whose answer `websockets` checks. No socket, no clock.

Proxies and redirects are not followed, and clients offer no extensions: permessage-deflate costs ten times the transfer
on images.
"""

from __future__ import annotations

import errno
import os
import socket

from policyserve.client.address import HOW_TO_GIVE_A_KEY, OR_IN_PYTHON, Address
from policyserve.client.retries import NotYet
from policyserve.core.encoded_images import IMAGES_HEADER, JPEG
from policyserve.core.errors import ConnectionLost, RemoteError
from policyserve.core.printable import one_line

_KEY_REFUSED = (401, 403)
_TRY_AGAIN = (429, 502, 503, 504)
_WORDS_OF_A_SERVER = ("no policy is at ", "no dialect is named ")  # policyserve's, for a path that leads nowhere
_MAX_REASON = 200  # characters of a stranger's page
# A server that restarts, a Unix socket that is not there yet, a robot out of its network's reach.
_HEALING = {errno.ENOENT, errno.EAGAIN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
# By OpenSSL's word for what went wrong.
_TLS_HINTS = {
    "WRONG_VERSION_NUMBER": "; a server without TLS wants ws://",
    "CERTIFICATE_VERIFY_FAILED": f"; SSL_CERT_FILE=ca.pem in the environment{OR_IN_PYTHON} trusts a CA of your own",
}
_ANOTHER_NAME = (62, 64)  # OpenSSL's numbers for a certificate of another host name or IP address
_NAME_HINT = "; connect by a name or an address that the certificate has"


class Handshake:
    """One request to become a WebSocket. `request`: its bytes.

    offers_deflate: offer permessage-deflate, as many other clients do, to see who agrees. Messages cannot be read then.
    asks_images: ask whether the server takes JPEGs, which it then says in its greeting.
    """

    def __init__(
        self, address: Address, api_key: str | None, *, offers_deflate: bool = False, asks_images: bool = False
    ) -> None:
        import logging

        from websockets.client import ClientProtocol
        from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
        from websockets.uri import parse_uri

        quiet = logging.getLogger("policyserve.websockets")
        quiet.setLevel(logging.WARNING)  # the library's own lines say what ours say already
        self._address = address
        self._has_key = api_key is not None
        extensions = [ClientPerMessageDeflateFactory(client_max_window_bits=True)] if offers_deflate else None
        self._protocol = ClientProtocol(parse_uri(address.http_url), extensions=extensions, logger=quiet)
        request = self._protocol.connect()
        if api_key is not None:
            request.headers.pop("Authorization", None)  # a URL's password
            request.headers["Authorization"] = f"Api-Key {api_key}"
        if asks_images:
            request.headers[IMAGES_HEADER] = JPEG
        self._protocol.send_request(request)
        self.request = b"".join(self._protocol.data_to_send())
        self._head = bytearray()
        self._is_head_read = False

    @property
    def extensions(self) -> list[str]:
        """The names of the extensions that were agreed on; empty before the answer, and where none was."""
        return [extension.name for extension in self._protocol.extensions]

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers by their names in lower case, as far as it has come."""
        head = self._head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        lines = (line.partition(":") for line in head)
        return {name.strip().lower(): value.strip() for name, _, value in lines}

    def feed(self, data: bytes) -> bytes | None:
        """What came behind the answer, if that is the one wished for; None: more is to come. No data: none will.

        Raises RemoteError if the key is refused, NotYet or ConnectionLost for every other answer.
        """
        behind = b""
        if not self._is_head_read:
            data, behind = self._split(data)
        if data:
            self._protocol.receive_data(data)
        elif not behind:
            self._protocol.receive_eof()
        if behind and self._protocol.state.name != "OPEN":
            self._protocol.receive_data(behind)  # a page that says why not
        if self._protocol.handshake_exc is not None:
            raise self._refusal(self._protocol.handshake_exc)
        return behind if self._protocol.state.name == "OPEN" else None

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """The part of `data` that belongs to the answer's head, and the rest."""
        seen = len(self._head)
        self._head += data
        end = self._head.find(b"\r\n\r\n", max(seen - 3, 0))
        if end < 0:
            return data, b""
        self._is_head_read = True
        return data[: end + 4 - seen], data[end + 4 - seen :]

    def _refusal(self, error: Exception) -> Exception:
        from websockets.exceptions import InvalidStatus

        url = self._address.url
        if not isinstance(error, InvalidStatus):
            if not self._head:
                hint = "" if self._address.is_secure else "; a server with TLS wants wss://"
                return NotYet(f"the connection ended before an answer{hint}")
            return ConnectionLost(f"cannot connect to {url}: no WebSocket server answers there: {_whole_reason(error)}")
        status = error.response.status_code
        told = " ".join((error.response.body or b"").decode("utf-8", "replace").split())[:_MAX_REASON]
        reason = f"HTTP {status} {error.response.reason_phrase[:_MAX_REASON]}".strip() + (f": {told}" if told else "")
        if status in _KEY_REFUSED:
            what = "refused the API key" if self._has_key else f"wants an API key ({HOW_TO_GIVE_A_KEY})"
            return RemoteError(f"{url} {what} ({reason})")
        if status in _TRY_AGAIN:
            return NotYet(one_line(reason))
        doubt = "" if told.startswith(_WORDS_OF_A_SERVER) else "; is it a policy server that answers there?"
        return ConnectionLost(f"cannot connect to {url}: {reason}{doubt}")


def _whole_reason(error: BaseException) -> str:
    return f"{error}: {error.__cause__}" if error.__cause__ is not None else str(error)


def connect_error(address: Address, error: Exception) -> Exception:
    """What to raise for an error of the socket: NotYet if it may heal, else ConnectionLost."""
    number = getattr(error, "errno", None)
    is_name_service_down = isinstance(error, socket.gaierror) and number == socket.EAI_AGAIN
    if isinstance(error, ConnectionError) or number in _HEALING or is_name_service_down:
        return NotYet(_spoken(error, number))
    is_other_name = getattr(error, "verify_code", None) in _ANOTHER_NAME
    reason = getattr(error, "reason", None) or ""
    hint = _NAME_HINT if is_other_name else _missing_ca(reason) or _TLS_HINTS.get(reason, "")
    return ConnectionLost(f"cannot connect to {address.url}: {_spoken(error, number)}{hint}")


def _missing_ca(reason: str) -> str:
    """What to say where SSL_CERT_FILE names no file, which OpenSSL takes without a word; empty where it does."""
    path = os.environ.get("SSL_CERT_FILE")
    if reason != "CERTIFICATE_VERIFY_FAILED" or not path or os.path.isfile(path):
        return ""
    return f"; there is no file {path}, which SSL_CERT_FILE names"


def _spoken(error: Exception, number: int | None) -> str:
    """Without the address, which the sentence around it names."""
    if type(error) is OSError or isinstance(error, ConnectionError):
        return os.strerror(number) if number else str(error) or "the connection ended"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
