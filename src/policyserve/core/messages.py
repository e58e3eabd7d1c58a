"""What travels between a client and a policy: messages as bytes, and what dialects read in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError, PolicyserveError, WireError
from policyserve.core.printable import one_line, text_of

_SHOWN_NUMBERS = 16  # of an action, in the repr of its reply

# Nested maps with str keys; leaves: array, str, bool, int, float, None, list of str.
Observation: TypeAlias = Mapping[str, Any]
# A whole WebSocket message, undecoded: a str is a text message.
Message: TypeAlias = bytes | bytearray | memoryview | str

VERSION_KEY = "policy_version"  # of an answer to who has asked for it: how many policies there have been, with its own


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text message as it came, UTF-8 that was checked. A str of it may take four times as much."""

    data: memoryview

    def __len__(self) -> int:
        return len(self.data)

    def text(self, most: int | None = None) -> str:
        """The text; most: only what its first so many bytes hold."""
        return str(self.data[:most], "utf-8", "ignore")


# A piece of a binary message; a view is of an array's own memory.
Part: TypeAlias = bytes | memoryview


class Request(NamedTuple):
    """One observation as a dialect read it.

    bare: the wire carried an array alone and not a map (vibe_rl's `obs`); a policy without a spec gets just that array.
    context: what a ConversingDialect wants to know again when it writes the answer, such as a number; nobody else looks
    at it. episode: which of several that the connection has at a time; empty: its only one. begins: the episode begins
    with this request, so that what the policy remembers of one of this name is dropped before.
    """

    observation: Observation
    bare: bool = False
    context: Any = None
    episode: str = ""
    begins: bool = False


class Control(NamedTuple):
    """A message that asks for no actions: a hello, a ping, the end of an episode.

    kind: what it is, in the dialect's own words, for the log. context: as a Request's. ends: the episode that is over
    with it, so that the policy forgets it; empty: the connection's only one; None: none is. ends_all: all of the
    connection's are. closes: the connection closes once everything before it is answered. newest_only: whether, from
    here on, an observation that another one of its episode has overtaken needs no answer; None: as before.
    """

    kind: str
    context: Any = None
    ends: str | None = None
    closes: bool = False
    newest_only: bool | None = None
    ends_all: bool = False


class Unreadable(NamedTuple):
    """A request that cannot be read, of which it is known how to answer: its envelope is fine. context: a Request's."""

    error: PolicyserveError
    context: Any = None


Heard: TypeAlias = Request | Control | Unreadable


def request_of(heard: Heard, path: str = "", expected: str = "an observation") -> Request:
    """What was heard, if it is a request; else raises why it cannot be read, or WireError with its kind."""
    if isinstance(heard, Unreadable):
        raise heard.error
    if isinstance(heard, Control):
        raise WireError(path, expected, f"{heard.kind!r:.40}")
    return heard


def leaves(observation: Observation, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What is in an observation and in its maps, each with its path, such as `images/wrist`."""
    for key, value in observation.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


class Timing(NamedTuple):
    """Where one request's time went, in milliseconds, on the server's monotonic clock.

    queue_ms: arrival to the start of its batch. infer_ms: the policy's own call. total_ms: arrival to just before its
    reply is written. prev_total_ms: total_ms of this session's previous reply; None for the first.
    """

    queue_ms: float
    infer_ms: float
    total_ms: float
    prev_total_ms: float | None = None


@dataclass(frozen=True, repr=False)
class Reply(Mapping[str, Any]):
    """An answer as a client sees it: `actions`, `timing` in ms, and as a mapping all that the wire carried."""

    actions: Array
    timing: Mapping[str, float]
    fields: Mapping[str, Any]

    @property
    def action(self) -> Array:
        """The action of a reply that has one: `actions` without an axis of steps, or the one step of a chunk of one.

        An array of one axis is taken for one action of several numbers. Raises ConfigError for a longer chunk.
        """
        if self.actions.ndim < 2:
            return self.actions
        if len(self.actions) == 1 and self.actions.ndim == 2:
            return self.actions[0]
        got = describe(self.actions.dtype, self.actions.shape)
        cure = f"take reply.actions[i], i from 0 to {len(self.actions) - 1}"
        raise ConfigError(f"reply.action: expected a chunk of one step, got {got}: {cure}")

    def __repr__(self) -> str:
        array = self.actions
        values = f" {np.array2string(array, precision=4, separator=', ')}" if array.size <= _SHOWN_NUMBERS else ""
        timing = "".join(f", {key} {_told(value)}" for key, value in self.timing.items())
        return one_line(f"<policyserve.Reply {describe(array.dtype, array.shape)}{values}{timing}>")

    def __getitem__(self, key: str) -> Any:
        return self.fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


def _told(value: Any) -> str:
    """A time in short; it is a server's, which may have sent anything."""
    if not isinstance(value, (int, float)):
        return text_of(value)
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.3g}"
