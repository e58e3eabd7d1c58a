"""What openpi and Wall-X have in common: the server greets with metadata, requests are maps, errors are texts.

An error leaves the connection open, so that a client may mend its observation and go on; only a fault of ours that is
not worth a retry closes it, with 1011.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, Placed
from policyserve.core.dialect import ErrorReply
from policyserve.core.errors import PolicyserveError, RemoteError, WireError, names_told
from policyserve.core.limits import DEFAULT_LIMITS, REPLY_LIMITS, WireLimits
from policyserve.core.messages import Message, Observation, Part, Reply, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.answers import pack_readable, text_refusal
from policyserve.dialects.marked_arrays import ArraysLeft, Spelling
from policyserve.dialects.packing import map_header, packed, packed_key
from policyserve.dialects.pieces import InPieces, parts_of
from policyserve.dialects.recognition import check_spelling
from policyserve.dialects.unpacking import unpack


class MetadataFirst(InPieces):
    """The order and form of messages; a family adds how it spells arrays and what a reply holds."""

    greets = True
    carries_jpeg = True
    name: str
    spelling: Spelling
    action_keys: tuple[str, ...]  # where a reply's actions may stand, first choice first
    greeted_with: tuple[str, ...] = ()  # what the family's clients look for in a greeting: None where it is not known

    def greeting(self, metadata: Mapping[str, Any]) -> Message:
        """The metadata as one MessagePack map, and above it what is known of actions and what the family looks for.

        Both families read each other's: on `/` a server greets before it knows which of them it has. Raises
        PolicyFailed with the path of what clients could not read.
        """
        return self._pack("metadata", {**dict.fromkeys(self.greeted_with), **_known_actions(metadata), **metadata})

    def read_request(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Request:
        """Read an observation: a map, nested or flat, of arrays, texts and numbers."""
        decoded = unpack(message, texts=True, placed=placed, limits=limits)
        if not isinstance(decoded, dict):
            raise WireError("", "a map", type(decoded).__name__)
        check_spelling(decoded, self.spelling.name, self.name)
        return Request(self._unmarked(decoded, ArraysLeft(limits.max_arrays)))

    @abstractmethod
    def action_entries(self, actions: Array) -> dict[str, Array]:
        """What a reply carries under which key: the same data, in one shape or several."""

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> bytes:
        """{…extras, …action_entries, "server_timing": …} as one MessagePack map.

        Raises PolicyFailed with the path of an extra that clients could not read.
        """
        actions = chunk.actions
        if chunk.extras:
            timings = {"server_timing": server_timing(timing)}
            return self._pack("answer", {**chunk.extras, **self.action_entries(actions), **timings})
        between = _between_data(self, actions.dtype, actions.shape)
        return actions.tobytes().join(between) + _pack_timing(timing)

    def _pack(self, what: str, message: Mapping[str, Any]) -> bytes:
        return pack_readable(what, message, self.spelling, self.name)

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        return text_refusal(error, detail)

    def request_parts(self, observation: Observation) -> list[Part]:
        return parts_of(observation, self.spelling)

    def read_greeting(self, message: Message) -> Mapping[str, Any]:
        return self.reply_fields(message)

    def reply_of(self, fields: dict[str, Any]) -> Reply:
        for key in self.action_keys:
            actions = fields.get(key)
            if actions is not None:
                timing = fields.get("server_timing")
                return Reply(actions, timing if isinstance(timing, dict) else {}, fields)
        raise WireError(self.action_keys[0], "actions", f"keys {names_told(fields)}")

    def reply_fields(self, message: Message, placed: list[Placed] | None = None) -> dict[str, Any]:
        if isinstance(message, str):
            raise RemoteError(message)
        decoded = unpack(message, texts=True, placed=placed, limits=REPLY_LIMITS)
        if not isinstance(decoded, dict):
            raise WireError("", "a map", type(decoded).__name__)
        return self._unmarked(decoded)

    def _unmarked(self, message: Mapping[str, Any], left: ArraysLeft | None = None) -> dict[str, Any]:
        """The message with its arrays; raises WireError if all of it is one array."""
        value = self.spelling.unmark(message, left)
        if not isinstance(value, dict):
            raise WireError("", "a map", "an array or a number alone")
        return value


def _known_actions(metadata: Mapping[str, Any]) -> dict[str, int]:
    """The size of an action and the steps of a chunk, as far as the spec says; without a horizon it is one step."""
    spec = metadata.get("spec") or {}
    action, steps = spec.get("action"), spec.get("horizon")
    size = action["shape"][-1] if action and action["shape"] else None
    if steps is None and action:
        steps = 1
    return {name: value for name, value in (("action_dim", size), ("pred_horizon", steps)) if value is not None}


@lru_cache(maxsize=1024)
def _between_data(dialect: MetadataFirst, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, ...]:
    """What stands before, between and after the data of a reply's actions, up to the timing."""
    entries = dialect.action_entries(np.empty(shape, dtype))
    pieces = [map_header(len(entries) + 1)]
    for key, array in entries.items():
        before, after = dialect.spelling.around_data(array)
        pieces[-1] += packed_key(key) + before
        pieces.append(after)
    pieces[-1] += packed_key("server_timing")
    return tuple(pieces)


def _pack_timing(timing: Timing) -> bytes:
    """The map of server_timing(), as `msgpack` packs it."""
    stages = timing.infer_ms, _QUEUE, timing.queue_ms, _TOTAL, timing.total_ms
    if timing.prev_total_ms is None:
        return _FIRST_FORM.pack(_FIRST_BEGIN, *stages)
    return _FORM.pack(_BEGIN, *stages, _PREV_TOTAL, timing.prev_total_ms)


def server_timing(timing: Timing) -> dict[str, float]:
    """The timing map of a reply; prev_total_ms is absent in a connection's first."""
    stages = {"infer_ms": timing.infer_ms, "queue_ms": timing.queue_ms, "total_ms": timing.total_ms}
    return stages if timing.prev_total_ms is None else {**stages, "prev_total_ms": timing.prev_total_ms}


# What stands before each number: its key, and that a float64 follows.
_STAGE, _QUEUE, _TOTAL, _PREV_TOTAL = (
    packed(stage) + b"\xcb" for stage in ("infer_ms", "queue_ms", "total_ms", "prev_total_ms")
)
_FIRST_BEGIN, _BEGIN = map_header(3) + _STAGE, map_header(4) + _STAGE
_FIRST_FORM = struct.Struct(f">{len(_BEGIN)}sd{len(_QUEUE)}sd{len(_TOTAL)}sd")
_FORM = struct.Struct(f"{_FIRST_FORM.format}{len(_PREV_TOTAL)}sd")
