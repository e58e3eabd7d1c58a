"""What the live page's data, /live.json, say of a server, and what is observed of it while somebody looks.

Everything here runs in the event loop's thread, but for the making of thumbnails.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from policyserve import dialects
from policyserve.core.observer import Observers
from policyserve.core.printable import one_line, text_of
from policyserve.core.spec import PolicySpec, checkpoint_of
from policyserve.core.version import VERSION
from policyserve.observe.counters import Counters
from policyserve.observe.looks import Look, finite, names_in
from policyserve.observe.refusals import Refusals
from policyserve.observe.samples import EVERY_S, KEPT, Samples
from policyserve.observe.thumbnails import Cut, Thumbnail, ThumbnailThread, is_possible
from policyserve.observe.watcher import Watcher
from policyserve.server.config import ServerConfig
from policyserve.server.reception import Reception, SessionState
from policyserve.server.routes import Response
from policyserve.server.served import Served

FORMAT = 1  # of /live.json; another number where something that is there today means something else
WATCHED_S = 10.0  # after somebody asked
_LOOKED_S = 5.0  # after somebody asked for a session
_MADE_FOR_S = 0.2  # an answer is given again to whoever asks within that time
_MOST_SESSIONS = 100  # on a page
_MOST_ANSWERS = 32  # that are kept for _MADE_FOR_S
_MOST_LEAVES = 40
_MOST_OF_TEXT, _MOST_FACTS = 200, 20


class Facts:
    """Where what is told comes from, and when the server began."""

    def __init__(self, reception: Reception, counters: Counters, config: ServerConfig, refusals: Refusals) -> None:
        self.reception, self.counters = reception, counters
        self.config, self.refusals = config, refusals
        self.started_at, self.started = time.time(), time.monotonic()


def described(facts: Facts, watch: Watch, session: int, has_pictures: bool) -> Mapping[str, Any]:
    """What /live.json tells (docs/live_page.md), JSON-like. session: the one that is looked at, 0 for none."""
    states = facts.reception.session_states()
    newest = watch.samples.newest
    return {
        "format": FORMAT,
        "server": {
            "version": VERSION,
            "started_at": round(facts.started_at, 3),
            "up_s": round(time.monotonic() - facts.started, 1),
            "needs_key": bool(facts.reception.admission.keys),
            "has_tls": facts.config.tls_cert is not None,
            "dialect": facts.config.dialect,
            "dialects": list(dialects.names()),
        },
        "policy": _policy(facts.reception.catalogue.default),
        "policies": [_policy(served) for served in facts.reception.catalogue],
        "numbers": {
            "answers_per_s": newest.answers_per_s if newest else None,
            "p50_ms": newest.p50_ms if newest else None,
            "p99_ms": newest.p99_ms if newest else None,
            "busy": newest.busy if newest else None,
            "sessions": len(states),
            "unanswered": sum(served.engine.load for served in facts.reception.catalogue),
            "answers": facts.counters.requests,
            "refused": dict(facts.counters.errors),
            "refused_lately": dict(watch.samples.refused()),
        },
        "history": {"every_s": EVERY_S, "kept": KEPT, **watch.samples.lines()},
        "batches": watch.samples.sizes(),
        "sessions": [_session(state, watch.watcher) for state in states[-_MOST_SESSIONS:]],
        "sessions_left_out": max(len(states) - _MOST_SESSIONS, 0),
        "pictures": watch.why_no_pictures,
        "selected": watch.selected(session, has_pictures) if session else None,
        "refusals": facts.refusals.described(),
    }


def _policy(served: Served) -> Mapping[str, Any]:
    stage = served.stage
    told = {"stage": text_of(stage, _MOST_OF_TEXT), "is_ready": not stage}
    return {**told, **_served(served.spec), **({"name": served.name} if served.is_named else {})}


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
        self.watcher = Watcher(reception.spec_of, reception.receiving_s)
        self.samples = Samples(counters, sum(served.config.replicas for served in reception.catalogue))
        self.why_no_pictures = _why_no_pictures(config)
        self._reception, self._observers, self._on_nobody = reception, observers, on_nobody
        self._loop = asyncio.get_running_loop()
        self._thumbnails: ThumbnailThread | None = None
        self._answers: dict[object, tuple[float, Response]] = {}
        self._asked_at = self._sampled_at = time.monotonic()
        observers.add(self.watcher, is_trusted=True)
        self._timer = self._loop.call_later(EVERY_S, self._sample)

    def answer(self, key: object, make: Callable[[], Response]) -> Response:
        """What make() makes, or what it made just now: a hundred people who look cost as much as five."""
        now = self._asked_at = time.monotonic()
        made_at, response = self._answers.get(key, (-1.0, None))
        if response is None or now - made_at > _MADE_FOR_S:
            response = make()
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
        spec = self._reception.spec_of(session)
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
        "policy": facts.policy,
        "key": one_line(facts.key, _MOST_OF_TEXT),
        "hz": round(pace.hz, 2),
        "p99_ms": None if pace.p99_ms is None else finite(pace.p99_ms),
        "pending": state.pending,
        "age_s": round(state.age_s, 1),
    }


def _served(spec: PolicySpec | None) -> Mapping[str, Any]:
    """What is served, in texts of bounded length."""
    if spec is None:
        return {"name": "", "checkpoint": "", "takes": [], "gives": "", "gives_doc": "", "facts": {}}
    metadata = spec.metadata
    steps = "" if spec.horizon is None else f", chunks of {spec.horizon}"
    plain = {
        text_of(key, 60): text_of(value, _MOST_OF_TEXT)
        for key, value in list(metadata.items())[:_MOST_FACTS]
        if isinstance(value, (str, int, float, bool))
    }
    return {
        "name": text_of(spec.name, _MOST_OF_TEXT),
        "checkpoint": text_of(checkpoint_of(metadata), _MOST_OF_TEXT),
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
