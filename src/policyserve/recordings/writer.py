"""The process that writes recordings: it takes messages out of the queue, and ends when the server does."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from policyserve.recordings.file import RecordingFile
from policyserve.recordings.layout import ENDING, Opened, PolicyFacts
from policyserve.recordings.plan import Plan
from policyserve.recordings.queue import Descriptors, Entry, Incoming, Kind
from policyserve.recordings.views import Views

_NICE = 10  # the robots' round trips come first
_FLUSH_S = 0.5  # at most; so that a second after it was said, it is in the file
_PATIENCE_S = 0.05  # at most, for a reply to what has come: an answer should be on its way before this takes a core
_PAUSE_S = 0.002  # after a reply, for the robot to read it
_MOST_EARLIER = 4
_BEHIND = 8  # nothing is compressed, and views are left out, while one part in so many of the queue is waiting


def main(text: str) -> None:
    """Write until the server closes its end. text: JSON of the plan and of the descriptors that were passed.

    Raises SystemExit(1) if the files cannot be written.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the server's to answer
    with suppress(OSError, AttributeError):
        os.nice(_NICE)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # so that it never takes a core as it wakes up
    told = json.loads(text)
    queue, status, offset = (told.pop(name) for name in ("queue", "status", "clock_offset_ns"))
    plan = Plan(**told)
    try:
        Writing(plan, offset, lambda line: _say(status, line)).run(Incoming(Descriptors(*queue)))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else f"{plan.directory}: "
        _say(status, f"error {where}{error.strerror or error}")
        raise SystemExit(1) from None


def _say(status: int, line: str) -> None:
    with suppress(OSError):  # the server is gone
        os.write(status, line.replace("\n", " ").encode("utf-8", "replace") + b"\n")


def answered(queue: Incoming, is_behind: Callable[[Entry], bool], patience_s: float = _PATIENCE_S) -> Sequence[Entry]:
    """What has come, waiting for the first: once some of it is a reply, or none has come in time, or much waits."""
    poll = select.poll()
    poll.register(queue.descriptor, select.POLLIN)
    entries = list(queue.read())
    until = time.monotonic() + patience_s
    while not queue.has_ended and entries[-1].kind == Kind.REQUEST and not is_behind(entries[-1]):
        rest_s = until - time.monotonic()
        if rest_s <= 0 or not poll.poll(rest_s * 1e3):
            return entries
        entries += queue.read()
    time.sleep(_PAUSE_S)
    return entries


class Writing:
    """One server's recording, in one file after the other. clock_offset_ns: from time.monotonic_ns to 1970's."""

    def __init__(self, plan: Plan, clock_offset_ns: int, say: Any) -> None:
        self._plan, self._offset, self._say = plan, clock_offset_ns, say
        self._sessions: dict[int, Opened] = {}
        self._policy: PolicyFacts | None = None
        self._policies: dict[str, PolicyFacts] = {}  # by name, the newest last
        self._views = Views() if plan.has_views else None
        self._earlier: list[RecordingFile] = []  # files that are full, while they await replies
        self._file = self._new_file()

    def run(self, queue: Incoming) -> None:
        """Write what comes until nothing will. Raises OSError."""
        flush_at: float | None = None
        poll = select.poll()
        poll.register(queue.descriptor, select.POLLIN)
        while not queue.has_ended:
            rest_s = None if flush_at is None else max(flush_at - time.monotonic(), 0.0)
            if poll.poll(None if rest_s is None else rest_s * 1e3):
                for entry in answered(queue, self._is_behind):
                    self._take(entry, queue)
                if flush_at is None:
                    flush_at = time.monotonic() + _FLUSH_S
            if flush_at is not None and time.monotonic() >= flush_at:
                self._flush()
                flush_at = None
        for file in self._files():
            file.close()

    def _is_behind(self, entry: Entry) -> bool:
        return entry.waiting > self._plan.queue_bytes // _BEHIND

    def _take(self, entry: Entry, queue: Incoming) -> None:
        at = entry.at + self._offset
        with queue.lent(entry) as data:
            if entry.kind == Kind.EVENT:
                self._take_event(json.loads(bytes(data)), at)
                return
            self._take_message(entry, data, at)
        if self._earlier:
            self._end_earlier()
        if self._file.is_full(self._plan.max_bytes):
            self._rotate()

    def _take_message(self, entry: Entry, data: memoryview, at: int) -> None:
        session, number, is_text = entry.session, entry.number, bool(entry.is_text)
        is_behind = self._is_behind(entry)
        views = None if is_text or is_behind else self._views
        if entry.kind == Kind.REQUEST:
            self._file.compresses = not is_behind
            self._file.request(session, number, data, at, is_text=is_text)
            seen = views.of_request(session, data, at) if views else ()
        else:
            self._file_of(session, number).reply(session, number, data, at, is_text=is_text)
            seen = views.of_reply(session, data, at) if views and number > 0 else ()
        for view in seen:
            self._file.view(view.topic, view.schema, view.message, at)

    def _take_event(self, told: dict[str, Any], at: int) -> None:
        event, session = told.pop("event"), told.get("session", 0)
        if event == "policy":
            self._policy = PolicyFacts.read(told)
            self._policies.pop(self._policy.name, None)
            self._policies[self._policy.name] = self._policy
            self._file.tell_policy(self._policy)
        elif event == "opened":
            opened = self._sessions[session] = Opened(
                session, told["peer"], told["dialect"], at / 1e9, None, told["key"], policy=told.get("policy", "")
            )
            self._file.open_session(opened)
        elif event == "dialect" and session in self._sessions:
            self._sessions[session] = self._sessions[session]._replace(dialect=told["dialect"])
            self._file.tell_dialect(session, told["dialect"], at)
        elif event == "closed":
            self._sessions.pop(session, None)
            for file in self._files():
                file.close_session(session, at)
        elif event == "refused":
            number = told["request"]
            self._file_of(session, number).refuse(session, number, told["code"], told["text"], at)
        elif event == "left_out":
            number = told.get("request", 0)
            self._file_of(session, number).leave_out(session, number, at, told["count"])
        if self._views is not None:
            self._views.note(event, session, told, self._policy)

    def _files(self) -> list[RecordingFile]:
        return [*self._earlier, self._file]

    def _file_of(self, session: int, number: int | None) -> RecordingFile:
        """The file that a request is in, which may be an earlier one."""
        asked = session, number
        return next((file for file in self._earlier if asked in file.awaited), self._file)

    def _end_earlier(self) -> None:
        """Close the full files that have all their replies, and of the others the oldest where there are many."""
        for file in self._earlier[:]:
            if not file.awaited or len(self._earlier) > _MOST_EARLIER:
                self._earlier.remove(file)
                file.close()

    def _rotate(self) -> None:
        """Go on in a new file; the one before stays open for the replies that it awaits."""
        self._earlier.append(self._file)
        self._file = self._new_file()
        in_use = {opened.policy for opened in self._sessions.values()}
        for name, policy in self._policies.items():  # those of sessions by their name, and the newest
            if name in in_use or policy is self._policy:
                self._file.tell_policy(policy)
        for opened in self._sessions.values():
            self._file.open_session(opened._replace(is_continued=True))
        self._end_earlier()

    def _flush(self) -> None:
        for file in self._files():
            file.flush()

    def _new_file(self) -> RecordingFile:
        """A file whose name no other server has taken."""
        begun = datetime.now().astimezone()
        facts = {"began": begun.isoformat(timespec="milliseconds"), "clock_offset_ns": str(self._offset)}
        name = f"policyserve-{begun:%Y%m%d-%H%M%S}"
        for attempt in count():
            path = Path(self._plan.directory, f"{name}-{attempt}{ENDING}" if attempt else f"{name}{ENDING}")
            with suppress(FileExistsError):
                file = RecordingFile(path, facts)
                self._say(f"file {path}")
                return file
        raise AssertionError
