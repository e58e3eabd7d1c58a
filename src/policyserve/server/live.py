"""The live page: what a person sees of a server at work, at / and /live, and its data at /live.json.

Whoever asks for the data has the server watched for some seconds more; nobody asking, nothing is observed and no frame
is held. Everything here runs in the event loop's thread, but for the making of thumbnails.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from typing import Any

from policyserve import dialects
from policyserve.core.observer import Observers
from policyserve.core.printable import one_line, text_of
from policyserve.core.spec import PolicySpec
from policyserve.core.version import VERSION
from policyserve.engine.engine import Engine
from policyserve.observe.counters import Counters
from policyserve.observe.looks import Look, finite, names_in
from policyserve.observe.refusals import Refusals
from policyserve.observe.samples import EVERY_S, KEPT, Samples
from policyserve.observe.thumbnails import Cut, Thumbnail, ThumbnailThread, is_possible
from policyserve.observe.watcher import Watcher
from policyserve.server.config import ServerConfig
from policyserve.server.reception import Reception, SessionState
from policyserve.server.routes import Asked, Response, Route, json_of, text

FORMAT = 1  # of /live.json; another number where something that is there today means something else
WATCHED_S = 10.0  # after somebody asked
_LOOKED_S = 5.0  # after somebody asked for a session
_MADE_FOR_S = 0.2  # an answer is given again to whoever asks within that time
_MOST_SESSIONS = 100  # on a page
_MOST_ANSWERS = 32  # that are kept for _MADE_FOR_S
_MOST_LEAVES = 40
_MOST_OF_TEXT, _MOST_FACTS = 200, 20

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

    def __init__(
        self, reception: Reception, engine: Engine, observers: Observers, counters: Counters, config: ServerConfig
    ) -> None:
        self.watching: Watch | None = None  # while somebody looks
        self.refusals = Refusals(reception.peer_of)
        self._reception, self._engine, self._observers, self._counters = reception, engine, observers, counters
        self._config = config
        self._started_at, self._started = time.time(), time.monotonic()

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
        return watch.answer((number, has_pictures), lambda: self._told(watch, number, has_pictures))

    def _told(self, watch: Watch, session: int, has_pictures: bool) -> Mapping[str, Any]:
        states = self._reception.session_states()
        newest = watch.samples.newest
        return {
            "format": FORMAT,
            "server": {
                "version": VERSION,
                "started_at": round(self._started_at, 3),
                "up_s": round(time.monotonic() - self._started, 1),
                "needs_key": bool(self._reception.admission.keys),
                "has_tls": self._config.tls_cert is not None,
                "dialect": self._config.dialect,
                "dialects": list(dialects.names()),
            },
            "policy": self._policy(),
            "numbers": {
                "answers_per_s": newest.answers_per_s if newest else None,
                "p50_ms": newest.p50_ms if newest else None,
                "p99_ms": newest.p99_ms if newest else None,
                "busy": newest.busy if newest else None,
                "sessions": len(states),
                "unanswered": self._engine.load,
                "answers": self._counters.requests,
                "refused": dict(self._counters.errors),
                "refused_lately": dict(watch.samples.refused()),
            },
            "history": {"every_s": EVERY_S, "kept": KEPT, **watch.samples.lines()},
            "batches": watch.samples.sizes(),
            "sessions": [_session(state, watch.watcher) for state in states[-_MOST_SESSIONS:]],
            "sessions_left_out": max(len(states) - _MOST_SESSIONS, 0),
            "pictures": watch.why_no_pictures,
            "selected": watch.selected(session, has_pictures) if session else None,
            "refusals": self.refusals.described(),
        }

    def _policy(self) -> Mapping[str, Any]:
        stage = self._reception.stage or self._engine.stage
        told = {"stage": text_of(stage, _MOST_OF_TEXT), "is_ready": not stage}
        return {**told, **_described(self._reception.spec)}


class Watch:
    """A server while somebody looks: the observer, its samples once a second, and thumbnails of what one looks at."""

    def __init__(
        self,
        reception: Reception,
        observers: Observers,
        counters: Counters,
        config: ServerConfig,
        on_nobody: Callable[[], None],
    ) -> None:
        self.watcher = Watcher(lambda: reception.spec, reception.receiving_s)
        self.samples = Samples(counters, config.replicas)
        self.why_no_pictures = _why_no_pictures(config)
        self._reception, self._observers, self._on_nobody = reception, observers, on_nobody
        self._loop = asyncio.get_running_loop()
        self._thumbnails: ThumbnailThread | None = None
        self._answers: dict[object, tuple[float, Response]] = {}
        self._asked_at = self._sampled_at = time.monotonic()
        observers.add(self.watcher, is_trusted=True)
        self._timer = self._loop.call_later(EVERY_S, self._sample)

    def answer(self, key: object, tell: Callable[[], Mapping[str, Any]]) -> Response:
        """What tell() says as JSON, or what it said just now: a hundred people who look cost as much as five."""
        now = self._asked_at = time.monotonic()
        made_at, response = self._answers.get(key, (-1.0, None))
        if response is None or now - made_at > _MADE_FOR_S:
            made = json_of(200, tell())
            response = Response(made.status, made.body, made.content_type, _HEADERS)
            self._answers.pop(key, None)
            self._answers[key] = now, response
            if len(self._answers) > _MOST_ANSWERS:
                del self._answers[next(iter(self._answers))]
        return response

    def selected(self, session: int, has_pictures: bool) -> Mapping[str, Any] | None:
        """What is seen of a session, which is looked into from now on; None if it is over."""
        if not self._reception.peer_of(session):
            return None
        look = self.watcher.look(session, lambda: self._new_look(session))
        spec = self._reception.spec
        doc = one_line(spec.action.doc, _MOST_OF_TEXT) if spec is not None and spec.action is not None else ""
        lines = look.actions()
        return {
            "number": session,
            "pictures": [_picture(one) for one in look.thumbnails.values()] if has_pictures else [],
            "numbers": [
                {"path": one.path, "shape": one.shape, "doc": one.doc, "names": one.names, "values": told}
                for one in look.numbers
                for told in [[finite(value) for value in one.values]]
            ],
            "texts": look.texts,
            "actions": {
                "is_chunk": look.chunk is not None,
                "doc": doc,
                "names": names_in(doc, len(lines)),
                "lines": lines,
            },
        }

    def stop(self) -> None:
        """Observe no more, and let go of what was kept."""
        self._timer.cancel()
        self._observers.remove(self.watcher)
        self.watcher.looks.clear()
        self._answers.clear()
        if self._thumbnails is not None:
            self._thumbnails.close()

    def _sample(self) -> None:
        now = time.monotonic()
        if now - self._asked_at > WATCHED_S:
            self._on_nobody()
            return
        self.samples.add(self.watcher.take(), now - self._sampled_at)
        self._sampled_at = now
        self.watcher.forget_looks(now - _LOOKED_S)
        for key in [key for key, (made_at, _) in self._answers.items() if now - made_at > _MADE_FOR_S]:
            del self._answers[key]
        self._timer = self._loop.call_later(EVERY_S, self._sample)

    def _new_look(self, session: int) -> Look:
        return Look(None if self.why_no_pictures else partial(self._make_thumbnails, session))

    def _make_thumbnails(self, session: int, cuts: Sequence[Cut]) -> None:
        if self._thumbnails is None:
            self._thumbnails = ThumbnailThread()
        self._thumbnails.make(cuts, partial(self._hand_over, session))

    def _hand_over(self, session: int, made: Sequence[tuple[Cut, bytes]]) -> None:
        """Called in the thread."""

        def note() -> None:
            if (look := self.watcher.looks.get(session)) is not None:
                look.note_pictures(made)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(note)


def _why_no_pictures(config: ServerConfig) -> str:
    """Why camera pictures are not shown; empty if they are."""
    if not config.live_images:
        return "camera pictures are turned off (--no-live-images)"
    return "" if is_possible() else "camera pictures need Pillow: pip install 'policyserve[images]'"


def _session(state: SessionState, watcher: Watcher) -> Mapping[str, Any]:
    facts, pace = state.facts, watcher.pace(state.facts.number)
    return {
        "number": facts.number,
        "peer": one_line(facts.peer, _MOST_OF_TEXT),
        "dialect": facts.dialect,
        "key": one_line(facts.key, _MOST_OF_TEXT),
        "hz": round(pace.hz, 2),
        "p99_ms": None if pace.p99_ms is None else finite(pace.p99_ms),
        "pending": state.pending,
        "age_s": round(state.age_s, 1),
    }


def _described(spec: PolicySpec | None) -> Mapping[str, Any]:
    """What is served, in texts of bounded length."""
    if spec is None:
        return {"name": "", "checkpoint": "", "takes": [], "gives": "", "gives_doc": "", "facts": {}}
    metadata = spec.metadata
    checkpoint = metadata.get("checkpoint", metadata.get("checkpoint_step", ""))
    steps = "" if spec.horizon is None else f", chunks of {spec.horizon}"
    plain = {
        text_of(key, 60): text_of(value, _MOST_OF_TEXT)
        for key, value in list(metadata.items())[:_MOST_FACTS]
        if isinstance(value, (str, int, float, bool))
    }
    return {
        "name": text_of(spec.name, _MOST_OF_TEXT),
        "checkpoint": text_of(checkpoint, _MOST_OF_TEXT),
        "takes": [
            {"path": text_of(path, 80), "kind": text_of(leaf, _MOST_OF_TEXT), "doc": text_of(leaf.doc, _MOST_OF_TEXT)}
            for path, leaf in list(spec.leaves.items())[:_MOST_LEAVES]
        ],
        "gives": f"{text_of(spec.action, _MOST_OF_TEXT) if spec.action else 'any finite numbers'}{steps}",
        "gives_doc": text_of(spec.action.doc, _MOST_OF_TEXT) if spec.action else "",
        "facts": plain,
    }


def _picture(thumbnail: Thumbnail) -> Mapping[str, Any]:
    jpeg = base64.b64encode(thumbnail.jpeg).decode()
    return {"path": thumbnail.path, "shape": thumbnail.shape, "number": thumbnail.number, "jpeg": jpeg}


def _given(response: Response, asked: Asked) -> Response:
    return response


def _file(name: str, content_type: str) -> Response:
    body = resources.files("policyserve.server").joinpath("page").joinpath(name).read_bytes()
    return Response(200, body, content_type, _HEADERS)
