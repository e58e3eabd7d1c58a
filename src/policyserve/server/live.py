"""The live page: what a person sees of a server at work, at / and /live, and who asks for its data at /live.json.

Whoever asks for the data has the server watched for some seconds more; nobody asking, nothing is observed and no frame
is held. Everything here runs in the event loop's thread.
"""

from __future__ import annotations

from functools import partial
from importlib import resources

from policyserve.core.observer import Observers
from policyserve.observe.counters import Counters
from policyserve.observe.refusals import Refusals
from policyserve.server.config import ServerConfig
from policyserve.server.live_data import Facts, Watch, described
from policyserve.server.reception import Reception
from policyserve.server.routes import Asked, Response, Route, json_of, text

_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_PARTS = {
    "live.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "session.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class LivePage:
    """The page of one server. Its refusals are kept from the beginning, all else while somebody looks."""

    def __init__(self, reception: Reception, observers: Observers, counters: Counters, config: ServerConfig) -> None:
        self.watching: Watch | None = None  # while somebody looks
        self.refusals = Refusals(reception.peer_of)
        self._reception, self._observers, self._counters, self._config = reception, observers, counters, config
        self._facts = Facts(reception, counters, config, self.refusals)

    def add_to(self, reception: Reception) -> None:
        """Answer at this reception's paths, and keep what it refuses."""
        self._observers.add(self.refusals)
        reception.on_refused = self.refusals.note_handshake
        page = _file("index.html", "text/html; charset=utf-8")
        reception.routes.add("/", Route(lambda asked: page, is_private=True, shares_path=True))
        reception.routes.add("/live", Route(lambda asked: page, is_private=True))
        reception.routes.add("/live.json", Route(self._respond, is_private=True))
        for name, content_type in _PARTS.items():
            part = _file(name, content_type)
            route = Route(partial(_given, part), is_private=True, is_listed=False)
            reception.routes.add(f"/live/{name}", route)

    def stop_watching(self) -> None:
        """Let go of all that was collected, and of the observer."""
        if self.watching is not None:
            self.watching.stop()
            self.watching = None

    def _respond(self, asked: Asked) -> Response:
        session = asked.query.get("session", "")
        if session and not (session.isascii() and session.isdigit() and len(session) < 16):
            return text(400, "session: expected the number of a session")
        if self.watching is None:
            self.watching = Watch(self._reception, self._observers, self._counters, self._config, self.stop_watching)
        watch = self.watching
        number, has_pictures = int(session or 0), asked.query.get("pictures") == "1"
        return watch.answer((number, has_pictures), lambda: self._made(watch, number, has_pictures))

    def _made(self, watch: Watch, session: int, has_pictures: bool) -> Response:
        made = json_of(200, described(self._facts, watch, session, has_pictures))
        return Response(made.status, made.body, made.content_type, _HEADERS)


def _given(response: Response, asked: Asked) -> Response:
    return response


def _file(name: str, content_type: str) -> Response:
    body = resources.files("policyserve.server").joinpath("page").joinpath(name).read_bytes()
    return Response(200, body, content_type, _HEADERS)
