"""What /live.json says, as values that can be shown. Pure.

Whoever answers may be a stranger, so every text is made one printable line and every number is a finite one; what has
another type than expected is left out. docs/live_page.md says what each key means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.core.printable import one_line, text_of

FORMAT = 1  # of /live.json, as this command reads it
_MOST_OF_TEXT = 300  # characters
_MOST_ITEMS = 1000  # of a list


@dataclass(frozen=True)
class Policy:
    """What is served. takes: pairs of a path and what is expected there. stage: what it is loading; empty if ready."""

    name: str
    facts: Sequence[tuple[str, str]]
    stage: str
    is_ready: bool
    takes: Sequence[tuple[str, str]]
    gives: str


@dataclass(frozen=True)
class Line:
    """A number now, None where it is not known, and its history, the oldest first."""

    now: float | None
    history: Sequence[float | None]


@dataclass(frozen=True)
class Numbers:
    """How the server does. busy: 0 … 1. kept: values that a full history has. Refusals by their code."""

    answers_per_s: Line
    p50_ms: Line
    p99_ms: Line
    busy: Line
    sessions: Line
    unanswered: int
    kept: int
    every_s: float
    refused: Sequence[tuple[str, int]]
    refused_lately: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Session:
    """A client that is connected. policy: which of several answers it."""

    number: int
    peer: str
    dialect: str
    policy: str
    key: str
    hz: float | None
    p99_ms: float | None
    pending: int
    age_s: float | None


@dataclass(frozen=True)
class Refusal:
    """A refusal or failure. expected is empty where text says it all. session: None before there was one."""

    code: str
    session: int | None
    peer: str
    text: str
    path: str
    expected: str
    got: str
    hint: str
    ago_s: float | None
    count: int


@dataclass(frozen=True)
class Document:
    """All of it. policy: the default one, of policies. sessions_left_out: how many more there are than are listed."""

    version: str
    up_s: float | None
    policy: Policy
    policies: Sequence[Policy]
    numbers: Numbers
    sessions: Sequence[Session]
    sessions_left_out: int
    refusals: Sequence[Refusal]


def read_document(body: str | bytes) -> Document:
    """Read /live.json; raises ConfigError, which says what to do, for what no policyserve has said."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise ConfigError("it is no policyserve server, or a proxy answers for it: /live.json is not JSON") from None
    if not isinstance(told, dict) or not isinstance(told.get("numbers"), dict) or "format" not in told:
        raise ConfigError("it is no policyserve server: /live.json is something else there")
    if told["format"] != FORMAT:
        known = f"format {FORMAT} of /live.json, and the server has {text_of(told['format'], 20)}"
        raise ConfigError(f"this command reads {known}: install the server's version of policyserve here")
    root = _Fields(told)
    server = root.fields("server")
    return Document(
        version=server.text("version"),
        up_s=server.number("up_s"),
        policy=_policy(root.fields("policy")),
        policies=[_policy(one) for one in root.items("policies")],
        numbers=_numbers(root.fields("numbers"), root.fields("history")),
        sessions=[_session(one) for one in root.items("sessions")],
        sessions_left_out=root.count("sessions_left_out"),
        refusals=[_refusal(one) for one in root.items("refusals")],
    )


class _Fields:
    """A JSON object whose fields have the type that is asked for, or count as not told."""

    def __init__(self, told: Any) -> None:
        self._told: dict[str, Any] = told if isinstance(told, dict) else {}

    def text(self, name: str) -> str:
        found = self._told.get(name)
        return one_line(found, _MOST_OF_TEXT) if isinstance(found, str) else ""

    def number(self, name: str) -> float | None:
        return _finite(self._told.get(name))

    def count(self, name: str) -> int:
        return int(self.number(name) or 0)

    def is_true(self, name: str) -> bool:
        return self._told.get(name) is True

    def fields(self, name: str) -> _Fields:
        return _Fields(self._told.get(name))

    def list(self, name: str) -> Sequence[Any]:
        found = self._told.get(name)
        return found[:_MOST_ITEMS] if isinstance(found, list) else ()

    def items(self, name: str) -> Iterator[_Fields]:
        return (_Fields(one) for one in self.list(name) if isinstance(one, dict))

    def texts(self, name: str) -> list[tuple[str, str]]:
        found = self.fields(name)._told
        return [(one_line(key, 60), text_of(value, _MOST_OF_TEXT)) for key, value in found.items()]

    def counts(self, name: str) -> list[tuple[str, int]]:
        fields = self.fields(name)
        return [(one_line(key, 60), fields.count(key)) for key in fields._told]


def _policy(told: _Fields) -> Policy:
    checkpoint = told.text("checkpoint")
    facts = [fact for fact in told.texts("facts") if fact[0] != "checkpoint"]
    return Policy(
        name=told.text("name"),
        facts=[("checkpoint", checkpoint), *facts] if checkpoint else facts,
        stage=told.text("stage"),
        is_ready=told.is_true("is_ready"),
        takes=[(leaf.text("path"), leaf.text("kind")) for leaf in told.items("takes")],
        gives=told.text("gives"),
    )


def _numbers(told: _Fields, history: _Fields) -> Numbers:
    def line(name: str) -> Line:
        return Line(told.number(name), [_finite(value) for value in history.list(name)])

    return Numbers(
        answers_per_s=line("answers_per_s"),
        p50_ms=line("p50_ms"),
        p99_ms=line("p99_ms"),
        busy=line("busy"),
        sessions=line("sessions"),
        unanswered=told.count("unanswered"),
        kept=min(max(history.count("kept"), 1), _MOST_ITEMS),
        every_s=max(history.number("every_s") or 0.0, 0.001),
        refused=told.counts("refused"),
        refused_lately=told.counts("refused_lately"),
    )


def _session(told: _Fields) -> Session:
    return Session(
        number=told.count("number"),
        peer=told.text("peer"),
        dialect=told.text("dialect"),
        policy=told.text("policy"),
        key=told.text("key"),
        hz=told.number("hz"),
        p99_ms=told.number("p99_ms"),
        pending=told.count("pending"),
        age_s=told.number("age_s"),
    )


def _refusal(told: _Fields) -> Refusal:
    return Refusal(
        code=told.text("code"),
        session=None if told.number("session") is None else told.count("session"),
        peer=told.text("peer"),
        text=told.text("text"),
        path=told.text("path"),
        expected=told.text("expected"),
        got=told.text("got"),
        hint=told.text("hint"),
        ago_s=told.number("ago_s"),
        count=max(told.count("count"), 1),
    )


def _finite(value: object) -> float | None:
    """A number whose size a terminal's columns may hold; None for all else, a bool among it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -1e15 < value < 1e15 else None
