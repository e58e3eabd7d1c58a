"""The base class of the dialects whose clients say more than observations, and how their messages are read.

They greet, arrays are marked in maps, and errors are texts unless a dialect has another place for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Placed
from policyserve.core.dialect import ErrorReply
from policyserve.core.episodes import LONGEST_NAME
from policyserve.core.errors import PolicyserveError, RemoteError, WireError
from policyserve.core.limits import DEFAULT_LIMITS, REPLY_LIMITS, WireLimits
from policyserve.core.messages import Control, Heard, Message, Request, Timing, request_of
from policyserve.core.policy import ActionChunk
from policyserve.dialects.answers import pack_readable, text_refusal
from policyserve.dialects.marked_arrays import MSGPACK_NUMPY, OPENPI, ArraysLeft, Spelling
from policyserve.dialects.recognition import META, spelling_of, wrong_dialect
from policyserve.dialects.unpacking import unpack


class Conversing(ABC):
    """The members of a ConversingDialect that follow from the others."""

    greets = True
    one_action = False
    name: str

    @abstractmethod
    def read_message(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Heard:
        """Read whatever a client may send; raises WireError."""

    @abstractmethod
    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> Message:
        """Write an answer; context: the Request's, or None. Raises PolicyFailed for what clients could not read."""

    def greeting(self, metadata: Mapping[str, Any]) -> Message:
        """The metadata as one map; raises PolicyFailed with the path of what clients could not read."""
        return pack_readable("metadata", self.greeted(metadata), OPENPI, self.name)

    def greeted(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the greeting holds."""
        return metadata

    def read_request(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Request:
        """Read an observation; raises WireError for whatever else a client may say."""
        return request_of(self.read_message(message, limits, placed))

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Message:
        """Write an answer as to a request of which nothing is known."""
        return self.write_answer(chunk, timing, None)

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        return text_refusal(error, detail)

    def write_refusal(self, error: PolicyserveError, detail: str, context: Any) -> ErrorReply:
        """As write_error()."""
        return self.write_error(error, detail)

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> Message | None:
        """None: its clients expect no answer."""
        return None

    def read_greeting(self, message: Message) -> Mapping[str, Any]:
        return read_answer_map(message)


def read_map(
    message: Message, limits: WireLimits, name: str, placed: list[Placed] | None = None
) -> tuple[dict[str, Any], Spelling]:
    """Read a message for the dialect `name` that must be a map: its arrays, and how the client spells them.

    Raises WireError, and WrongDialect for a message of vibe_rl's. A map without arrays is taken for openpi's.
    """
    decoded = unpack(message, texts=True, placed=placed, limits=limits)
    if not isinstance(decoded, dict):
        raise WireError("", "a map", type(decoded).__name__)
    found = spelling_of(decoded)
    if found is None and META in decoded:
        raise wrong_dialect(name, "vibe_rl")
    spelling = MSGPACK_NUMPY if found == MSGPACK_NUMPY.name else OPENPI
    unmarked = spelling.unmark(decoded, ArraysLeft(limits.max_arrays))
    if not isinstance(unmarked, dict):
        raise WireError("", "a map", "an array or a number alone")
    return unmarked, spelling


def read_answer(message: Message, placed: list[Placed] | None = None) -> Any:
    """A server's message with its arrays, of either spelling; raises RemoteError for a text, and WireError."""
    if isinstance(message, str):
        raise RemoteError(message)
    decoded = unpack(message, texts=True, placed=placed, limits=REPLY_LIMITS)
    spelling = MSGPACK_NUMPY if spelling_of(decoded) == MSGPACK_NUMPY.name else OPENPI
    return spelling.unmark(decoded)


def read_answer_map(message: Message, placed: list[Placed] | None = None) -> dict[str, Any]:
    """As read_answer(); raises WireError also for what is no map."""
    found = read_answer(message, placed)
    if not isinstance(found, dict):
        raise WireError("", "a map", type(found).__name__)
    return found


def episode_of(name: Any, path: str) -> str:
    """The episode that a client names by a text or, as older ones do, by a whole number; None: its only one.

    Raises WireError for a name that is none, or too long.
    """
    if name is None:
        return ""
    if isinstance(name, np.ndarray) and name.size == 1 and name.dtype.kind in "iu":
        name = name.item()
    if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
        name = str(int(name))
    expected = f"a text of at most {LONGEST_NAME} letters, or a whole number"
    if not isinstance(name, str):
        raise WireError(path, expected, type(name).__name__)
    if len(name) > LONGEST_NAME:
        raise WireError(path, expected, f"{len(name)} letters")
    return name


def by_roles(fields: Iterable[tuple[str, Any]], pictures: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An observation of values under the names of what they are, and of pictures by camera, which go to `images`.

    Raises WireError where two of the client's keys are one of them.
    """
    observation: dict[str, Any] = {}
    cameras: dict[str, Any] = {}
    for place, found, path in ((observation, fields, ""), (cameras, pictures, "images/")):
        for key, value in found:
            if key in place:
                raise WireError(path + key, "one value", "two, which the client has under two names")
            place[key] = value
    if cameras and "images" in observation:
        raise WireError("images", "cameras under the client's own names", "them and a key images")
    return {**observation, "images": cameras} if cameras else observation


def told_timing(timing: Any) -> dict[str, float]:
    """The times of a server's answer, those of its entries that are numbers; empty where it tells none."""
    if not isinstance(timing, dict):
        return {}
    return {key: float(value) for key, value in timing.items() if type(value) in (int, float)}
