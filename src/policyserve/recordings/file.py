"""One recording being written: an MCAP file of mode 0600, in chunks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from policyserve.core.version import VERSION
from policyserve.recordings import layout
from policyserve.recordings.chunks import ChunkedFile
from policyserve.recordings.layout import Opened, PolicyFacts

_MOST_CHANNELS = 60_000  # MCAP numbers them with two bytes


class RecordingFile:
    """Sessions, their messages and events. Times are nanoseconds since 1970. What the file refuses is an OSError.

    number: a session's requests are numbered from 1, a reply has its request's number, a greeting 0.
    """

    def __init__(self, path: Path, facts: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.left_out = 0
        self.awaited: set[tuple[int, int]] = set()  # requests whose reply has not come
        self._stream = _new_file(path)
        self._writer = ChunkedFile(self._stream, layout.PROFILE, f"policyserve {VERSION}")
        told = {"format": layout.FORMAT, "version": VERSION, **(facts or {})}
        self._writer.add_metadata(layout.FILE, told)
        self._stream.flush()
        self._channels: dict[tuple[str, str], int] = {}
        self._schemas: dict[str, int] = {}
        self._sessions: dict[int, Opened] = {}

    def is_full(self, most_bytes: int) -> bool:
        """Whether another file should be begun: it has so many bytes, without the chunk in progress, or channels."""
        return self._stream.tell() >= most_bytes or self._writer.channels >= _MOST_CHANNELS

    @property
    def compresses(self) -> bool:
        """Whether it compresses what becomes smaller by that; to be turned off while time is short."""
        return self._writer.compresses

    @compresses.setter
    def compresses(self, value: bool) -> None:
        self._writer.compresses = value

    def tell_policy(self, facts: PolicyFacts) -> None:
        """What is served from here on."""
        self._writer.add_metadata(layout.POLICY, facts.record())

    def open_session(self, session: Opened) -> None:
        """A session began, or goes on in this file."""
        self._sessions[session.number] = session
        told = {"session": session.number, "peer": session.peer, "dialect": session.dialect, "key": session.key}
        if session.policy:
            told["policy"] = session.policy
        at = int(session.opened_at * 1e9)
        self._event("opened", at, **told, opened_at=session.opened_at, is_continued=session.is_continued)

    def tell_dialect(self, session: int, dialect: str, at: int) -> None:
        """A session is known to speak it."""
        if session in self._sessions:
            self._sessions[session] = self._sessions[session]._replace(dialect=dialect)
        self._event("dialect", at, session=session, dialect=dialect)

    def close_session(self, session: int, at: int) -> None:
        """A session ended."""
        if session in self._sessions:
            self._sessions[session] = self._sessions[session]._replace(closed_at=at / 1e9)
        self.awaited = {one for one in self.awaited if one[0] != session}
        self._event("closed", at, session=session)

    def request(
        self, session: int, number: int, message: bytes | memoryview, at: int, *, is_text: bool = False
    ) -> None:
        """A client's message, and when it had arrived."""
        self.awaited.add((session, number))
        self._add(self._raw(layout.request_topic(session), is_text), number, message, at)

    def reply(self, session: int, number: int, message: bytes | memoryview, at: int, *, is_text: bool = False) -> None:
        """A server's message, and when it left."""
        self.awaited.discard((session, number))
        self._add(self._raw(layout.reply_topic(session), is_text), number, message, at)

    def refuse(self, session: int, number: int | None, code: str, text: str, at: int) -> None:
        """The server refused a request, or the whole session. Its message, where it sends one, follows."""
        self._event("refused", at, session=session, request=number, code=code, text=text)

    def leave_out(self, session: int, number: int, at: int, count: int = 1) -> None:
        """So many requests are not here, since there was no room; number: the one that is here without its reply."""
        self.left_out += count
        self.awaited.discard((session, number))
        self._event("left_out", at, session=session, request=number, count=count)

    def view(self, topic: str, schema: tuple[str, bytes], message: bytes, at: int) -> None:
        """A picture or numbers for people, as JSON of a schema: its name, and itself."""
        channel = self._channels.get((topic, "json"))
        if channel is None:
            name, text = schema
            if name not in self._schemas:
                self._schemas[name] = self._writer.add_schema(name, "jsonschema", text)
            channel = self._writer.add_channel(topic, "json", self._schemas[name])
            self._channels[topic, "json"] = channel
        self._add(channel, 0, message, at)

    def flush(self) -> None:
        """Have all that was given in the file, readable."""
        self._writer.flush()

    def close(self) -> None:
        """Write what tells that nothing follows, and close the file."""
        sessions = [_record(session) for session in self._sessions.values()]
        told = {"left_out": str(self.left_out), "sessions": layout.json_of(sessions).decode()}
        self._writer.add_metadata(layout.END, told)
        self._writer.finish()
        self._stream.close()

    def abandon(self) -> None:
        """Close the file as it is; raises nothing."""
        with suppress(OSError):  # a full disk: what is buffered goes nowhere
            self._stream.close()

    def _event(self, event: str, at: int, /, **told: Any) -> None:
        channel = self._channels.get((layout.EVENTS, "json"))
        if channel is None:
            channel = self._writer.add_channel(layout.EVENTS, "json")
            self._channels[layout.EVENTS, "json"] = channel
        self._add(channel, 0, layout.json_of({"event": event, **told}), at)

    def _raw(self, topic: str, is_text: bool) -> int:
        encoding = layout.TEXT if is_text else layout.BINARY
        channel = self._channels.get((topic, encoding))
        if channel is None:
            channel = self._channels[topic, encoding] = self._writer.add_channel(topic, encoding)
        return channel

    def _add(self, channel: int, number: int, message: bytes | memoryview, at: int) -> None:
        self._writer.add_message(channel, at, message, number & 0xFFFFFFFF)


def _record(session: Opened) -> dict[str, Any]:
    """What the file's end tells of a session; of the only policy nothing, as ever."""
    return {name: value for name, value in session._asdict().items() if name != "policy" or value}


def _new_file(path: Path) -> BinaryIO:
    """A file that was not there, and that its owner alone may read: pictures of a home are in it."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0), 0o600), "wb")
