"""A server asked for its live data, and what to do where it gives none."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import h11

from policyserve.cli.keys import VARIABLE
from policyserve.cli.watch.document import Document, read_document
from policyserve.core.errors import ConfigError
from policyserve.core.printable import one_line
from policyserve.doctor.pages import Page, fetch
from policyserve.doctor.reaching import reaching
from policyserve.doctor.server import Examined

_MOST_BYTES = 1 << 22
_MOST_OF_TEXT = 200
_SOON_S = 0.2  # between two questions of ask_until_counted()
_TELLS_MORE = "`policyserve doctor URL` tells more"


@dataclass(frozen=True)
class Heard:
    """The newest data of a server, and what is the matter since then; empty while it answers."""

    document: Document
    trouble: str = ""


def ask(server: Examined) -> Document:
    """Ask once; raises ConfigError of one line, which says what to do, for whatever gives no data."""
    try:
        page = fetch(server, "/live.json", _MOST_BYTES)
    except h11.ProtocolError:
        raise ConfigError(f"it is no policyserve server: what answers there speaks no HTTP; {_TELLS_MORE}") from None
    except OSError as error:
        raise ConfigError(_why_silent(server, error)) from None
    if page.status == 200:
        return read_document(page.body)
    raise ConfigError(_why_refused(server, page))


def ask_until_counted(server: Examined) -> Document:
    """Ask until the server has counted a second, which it does while somebody looks; raises what ask() raises."""
    document = ask(server)
    deadline = time.monotonic() + 2 * document.numbers.every_s + server.timeout_s
    while document.numbers.answers_per_s.now is None and time.monotonic() < deadline:
        time.sleep(_SOON_S)
        document = ask(server)
    return document


class Asking:
    """A server that is asked again and again, in a thread of its own, so that keys are heard while it is silent."""

    def __init__(self, server: Examined, first: Document, interval_s: float) -> None:
        self.heard = Heard(first)  # replaced by the thread, never changed
        self._server, self._interval_s = server, interval_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_asking, name="asking", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a question that is under way is not waited for."""
        self._is_over.set()

    def _keep_asking(self) -> None:
        while not self._is_over.wait(self._interval_s):
            try:
                self.heard = Heard(ask(self._server))
            except ConfigError as error:
                self.heard = Heard(self.heard.document, str(error))


def _why_silent(server: Examined, error: OSError) -> str:
    """What the doctor finds on the way there; what was raised where it gets through."""
    for finding in reaching(server):
        if finding.verdict == "broken":
            return one_line(f"{finding.found}; {finding.cure}")
    if isinstance(error, TimeoutError):
        return f"no answer within {server.timeout_s:g} s: its policy may hold its event loop; {_TELLS_MORE}"
    return f"the connection ended without an answer ({one_line(str(error), _MOST_OF_TEXT)}); {_TELLS_MORE}"


def _why_refused(server: Examined, page: Page) -> str:
    told = one_line(" ".join(page.body.split()), _MOST_OF_TEXT)
    said = "" if not told or told.startswith(("<", "{")) else f": {told}"
    if page.status == 401 and server.authorization is None:
        return f"it needs an API key: set {VARIABLE}, or name a file with --api-key-file"
    if page.status == 401:
        return "it does not know this API key: is it one of this server's keys?"
    if page.status == 403:
        return f"it is not shown to us (HTTP 403){said or '; ' + _TELLS_MORE}"
    if page.status == 404:
        return "it has no live data: it was started with --no-live, or is older than this, or no policyserve server"
    if page.status == 503:
        return f"it is too busy to answer, or ends (HTTP 503){said}"
    return f"it is no policyserve server, or a proxy answers for it (HTTP {page.status}); {_TELLS_MORE}"
