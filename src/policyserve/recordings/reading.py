"""Reads a recording: its sessions, and what was asked and answered in each, decoded when it is looked at."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from policyserve import dialects
from policyserve.core.arrays import Array
from policyserve.core.dialect import Dialect
from policyserve.core.errors import ConfigError, MissingDependency, RemoteError, WireError
from policyserve.core.messages import Message, Observation, Reply
from policyserve.core.spec import PolicySpec, ValidObservation
from policyserve.recordings import layout
from policyserve.recordings.layout import Opened, PolicyFacts, RecordingError
from policyserve.recordings.matching import control_in
from policyserve.transforms.jpeg import decode_images

if TYPE_CHECKING:
    from policyserve.recordings.container import Container, Said

__all__ = ["Exchange", "Facts", "RecordedSession", "Recording", "RecordingError", "Refused", "open_recording"]

RecordedSession = Opened


class Refused(NamedTuple):
    """Why a request has no actions. code: one of core/errors.py, or "remote" where the server told none."""

    code: str
    text: str


@dataclass(frozen=True)
class Facts:
    """What a recording says of itself.

    policy: its name, empty where it was never ready. spec: None where nobody told one. checkpoint: empty where it is
    not known. version: of the policyserve that wrote it. left_out: requests that are missing, since the writer could
    not keep up. is_cut: it has no end: the writer was killed, or writes still.
    """

    policy: str
    spec: PolicySpec | None
    checkpoint: str
    version: str
    left_out: int
    is_cut: bool


@dataclass(frozen=True)
class Exchange:
    """A request and its reply. number: the session's first is 1. arrived_at, left_at: seconds since 1970.

    reply, left_at: None where the connection ended first, or the server refused by closing it. reset: the session
    or an episode begins with it, so the policy remembers nothing.
    """

    number: int
    request: Message
    arrived_at: float
    reply: Message | None
    left_at: float | None
    reset: bool
    dialect: Dialect | None = field(repr=False)
    spec: PolicySpec | None = field(repr=False)
    refused: Refused | None = None

    @cached_property
    def sent(self) -> Observation:
        """What the client sent, as its dialect reads it, pictures decoded. Raises WireError, BadObservation."""
        return decode_images(self._known.read_request(self.request).observation)

    @cached_property
    def valid(self) -> ValidObservation:
        """The observation that the recorded policy's spec makes of it. Raises WireError and BadObservation."""
        if self.spec is None or self.spec.observation is None:
            is_bare = self._known.read_request(self.request).bare
            return ValidObservation(next(iter(self.sent.values())) if is_bare else self.sent)
        return self.spec.validate(self.sent)

    @property
    def observation(self) -> Observation | Any:
        """What the policy got: a map, or an array alone. Raises WireError and BadObservation."""
        return self.valid.observation

    @cached_property
    def answer(self) -> Reply | None:
        """The reply as a client sees it; None where there is none, or it tells an error."""
        return None if isinstance(self._outcome, Refused) else self._outcome

    @property
    def actions(self) -> Array | None:
        """The actions that were answered, (horizon, *action) or (*action); None where there are none."""
        return None if self.answer is None else np.asarray(self.answer.actions)

    @property
    def error(self) -> Refused | None:
        """What the server refused it with; None if it answered, or if there is no answer at all."""
        return self._outcome if isinstance(self._outcome, Refused) else None

    @cached_property
    def _outcome(self) -> Reply | Refused | None:
        if self.refused is not None or self.reply is None:
            return self.refused
        try:
            return self._known.read_reply(self.reply)
        except RemoteError as error:
            return Refused(error.code, str(error))
        except WireError as error:
            return Refused(error.code, f"the recorded reply cannot be read: {error}")

    @property
    def _known(self) -> Dialect:
        if self.dialect is None:
            raise WireError("", "a session whose dialect is known", "one that was never told")
        return self.dialect


class Recording:
    """One file. sessions: in the order in which they were opened."""

    def __init__(self, container: Container) -> None:
        self.path = container.path
        self._container = container
        told = _Told(container)
        self.facts = told.facts
        self._specs = told.specs
        self.sessions: tuple[RecordedSession, ...] = tuple(told.sessions.values())

    def __repr__(self) -> str:
        return (
            f"<policyserve.Recording {self.path} of {self.facts.policy or 'no policy'}, {len(self.sessions)} sessions>"
        )

    def spec_of(self, session: RecordedSession) -> PolicySpec | None:
        """What the policy of this session takes and gives; None where nobody told it."""
        return self._specs.get(session.policy, self.facts.spec)

    def exchanges(self, session: int) -> Iterator[Exchange]:
        """What a session asked, in its order, read while it is walked through; requests that lack a half are left out.

        So is what asked for no actions, such as a hello.

        Raises RecordingError for a session that is not in it.
        """
        found = next((one for one in self.sessions if one.number == session), None)
        if found is None:
            known = ", ".join(str(one.number) for one in self.sessions) or "none"
            raise RecordingError(f"{self.path}: expected one of its sessions ({known}), got {session}")
        return self._exchanges(found)

    def _exchanges(self, session: RecordedSession) -> Iterator[Exchange]:
        pending: OrderedDict[int, Exchange] = OrderedDict()
        dialect, spec = self._dialect(session.dialect), self.spec_of(session)
        asked, answered = layout.request_topic(session.number), layout.reply_topic(session.number)
        topics = {asked, answered, layout.EVENTS}
        is_begun = False  # a session, or an episode of it, that asked nothing yet
        for said in self._container.said(topics.__contains__):
            if said.topic == asked:
                at, message = said.at / 1e9, _message(said)
                control = control_in(dialect, message)
                is_begun = is_begun or said.number == 1 or (control is not None and control.ends is not None)
                if control is not None:
                    continue
                made = Exchange(said.number, message, at, None, None, is_begun, dialect, spec)
                is_begun = False
                pending[said.number] = made
            elif said.topic == answered:
                yield from _answered(pending, said)
            else:
                _note(pending, said.event(), session.number)
        yield from pending.values()

    def _dialect(self, name: str) -> Dialect | None:
        if name in ("", "auto"):
            return None
        try:
            return dialects.spoken(name)
        except ConfigError as error:
            raise RecordingError(f"{self.path}: {error}") from error


def open_recording(path: str | PathLike[str]) -> Recording:
    """Read what a file says of itself. One that was cut is read up to there.

    Raises RecordingError, one line, for a file that is missing, is none of policyserve's, or of another format, and
    MissingDependency without mcap.
    """
    try:
        from policyserve.recordings.container import Container
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "mcap", "record") from error
    return Recording(Container(Path(path)))


class _Told:
    """What the metadata and the events of a file tell."""

    def __init__(self, container: Container) -> None:
        self.path = container.path
        self.sessions: dict[int, Opened] = {}
        records = {record.name: record.metadata for record in container.metadata}
        end = records.get(layout.END)
        self._left_out = 0
        if end is not None and not container.is_cut:
            self._read_end(end)
        else:
            self._read_events(container)
        version = records.get(layout.FILE, {}).get("version", "")
        found = [self._policy(record.metadata) for record in container.metadata if record.name == layout.POLICY]
        named = {session.policy for session in self.sessions.values() if session.policy}
        self.specs = {one.name: self._spec(one) for one in found if one.name in named}
        name, spec, checkpoint = ", ".join(self.specs), None, ""
        if found and len(self.specs) < 2:
            name, spec, checkpoint = found[-1].name, self._spec(found[-1]), found[-1].checkpoint
        self.facts = Facts(name, spec, checkpoint, version, self._left_out, container.is_cut)

    def _read_end(self, end: dict[str, str]) -> None:
        try:
            self._left_out = int(end["left_out"])
            for told in json.loads(end["sessions"]):
                session = Opened(**told)
                self.sessions[session.number] = session
        except (ValueError, KeyError, TypeError) as error:
            raise RecordingError(f"{self.path}: its last record cannot be read: {error!r:.80}") from error

    def _read_events(self, container: Container) -> None:
        for said in container.said(lambda topic: topic == layout.EVENTS):
            told = said.event()
            event, number = told.get("event"), told.get("session")
            if event == "left_out":
                self._left_out += int(told.get("count", 1))
            if event == "opened" and isinstance(number, int):
                opened_at, is_continued = told.get("opened_at", said.at / 1e9), bool(told.get("is_continued"))
                texts = (str(told.get(name, "")) for name in ("peer", "dialect", "key", "policy"))
                peer, dialect, key, policy = texts
                self.sessions[number] = Opened(number, peer, dialect, opened_at, None, key, is_continued, policy)
            elif event == "dialect" and number in self.sessions:
                self.sessions[number] = self.sessions[number]._replace(dialect=str(told.get("dialect", "")))
            elif event == "closed" and number in self.sessions:
                self.sessions[number] = self.sessions[number]._replace(closed_at=said.at / 1e9)

    def _policy(self, told: dict[str, str]) -> PolicyFacts:
        try:
            return PolicyFacts.read(told)
        except ValueError as error:
            raise RecordingError(f"{self.path}: its policy's spec cannot be read: {error!s:.80}") from error

    def _spec(self, policy: PolicyFacts) -> PolicySpec | None:
        try:
            return policy.policy_spec()
        except WireError as error:
            raise RecordingError(f"{self.path}: its policy's spec cannot be read: {error}") from error


def _message(said: Said) -> Message:
    return said.data.decode("utf-8", "replace") if said.encoding == layout.TEXT else said.data


def _answered(pending: OrderedDict[int, Exchange], said: Said) -> Iterator[Exchange]:
    """The exchanges that are over with a reply: its own, and those before it, since replies leave in order."""
    if said.number not in pending:
        return  # a greeting, or a reply whose request is in an earlier file
    pending[said.number] = replace(pending[said.number], reply=_message(said), left_at=said.at / 1e9)
    while pending:
        number, exchange = pending.popitem(last=False)
        yield exchange
        if number == said.number:
            return


def _note(pending: OrderedDict[int, Exchange], told: Any, session: int) -> None:
    number = told.get("request")
    if told.get("session") != session or number not in pending:
        return
    if told.get("event") == "left_out":
        del pending[number]
    elif told.get("event") == "refused":
        refused = Refused(str(told.get("code", "")), str(told.get("text", "")))
        pending[number] = replace(pending[number], refused=refused)
