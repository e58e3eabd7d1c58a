"""What a line of the log can be about: a closed list, so that a program which reads the log can know all of it.

docs/logs.md has the same list, for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

EventName = Literal[
    "stage", "ready", "stopping", "unanswered", "stopped", "failed",
    "session_opened", "session_speaks", "session_greeted", "session_ended", "session_closed",
    "keys_dropped", "keys_mapped", "pictures_binary", "request_refused", "answer_lost",
    "connection_refused", "connection_cut", "handshake_failed", "protocol_violated",
    "policy_lost", "policy_replaced", "policy_not_replaced", "policy_slow", "policy_shared", "policy_close_failed",
    "policy_watched", "policy_changed", "policy_reloaded", "policy_not_reloaded", "policy_spec_seen",
    "policy_coming", "policy_swapped", "policy_not_swapped", "run_followed", "run_lost",
    "access_warned", "flag_unused", "files_reloaded", "files_not_reloaded",
    "recording_begun", "recording_behind", "recording_ended",
    "statistics", "observer_failed", "uncaught", "lines_lost", "log",
]  # fmt: skip
EVENTS: tuple[EventName, ...] = get_args(EventName)


class Event(NamedTuple):
    """What a line is about, for programs. Whoever knows nothing of a field leaves it out.

    session: its number. peer: IP address and port. dialect, policy: their names. code: an error's, or a status of HTTP,
    or a close code. ms: how long it took. path: where in the observation.
    """

    event: EventName
    session: int | None = None
    peer: str | None = None
    dialect: str | None = None
    policy: str | None = None
    code: str | int | None = None
    ms: float | None = None
    path: str | None = None

    def facts(self) -> Mapping[str, object]:
        """The fields that are known."""
        return {name: value for name, value in zip(self._fields, self, strict=True) if value is not None}


FACTS = Event._fields[1:]  # the keys of a line that not every line has
