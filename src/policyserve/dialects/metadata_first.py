"""What openpi and Wall-X have in common: the server greets with metadata, a request is a map, an error is a text frame.

An error leaves the connection open, so that a client may mend its observation and go on; only a fault of ours that is
not worth a retry closes it, with 1011.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from policyserve.core.arrays import Array, Placed
from policyserve.core.dialect import ErrorReply, close_code_of, close_reason
from policyserve.core.errors import PolicyserveError, RemoteError, WireError, WrongDialect
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Frame, Observation, Part, Reply, Request, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.marked_arrays import ArraysLeft, Spelling, spelling_of
from policyserve.dialects.parts import joined, map_header, packed, packed_key
from policyserve.dialects.wire import unpack


class MetadataFirst:
    """The flow of frames; a family adds its array spelling and how a reply looks."""

    greets = True
    name: str
    spelling: Spelling
    action_keys: tuple[str, ...]  # where a reply's actions may stand, first choice first

    def greeting(self, metadata: Mapping[str, Any]) -> Frame:
        """The metadata as one MessagePack map; both families read the same bytes."""
        return self.spelling.pack(metadata)

    def read_request(
        self, frame: Frame, placed: list[Placed] | None = None, limits: WireLimits = DEFAULT_LIMITS
    ) -> Request:
        """Read an observation: a map, nested or flat, of arrays, texts and numbers."""
        message = unpack(frame, texts=True, placed=placed, limits=limits)
        if not isinstance(message, dict):
            raise WireError("", "a map", type(message).__name__)
        other = spelling_of(message) or ("vibe_rl" if "__meta__" in message else self.name)
        if other != self.name:
            raise WrongDialect("", f"{self.name}'s frames", f"{other}'s", f"connect to /{other}")
        return Request(self._unmarked(message, ArraysLeft(limits.max_arrays)))

    def pack_reply(self, actions: Mapping[str, Array], chunk: ActionChunk, timing: Timing) -> bytes:
        """{…extras, …actions, "server_timing": …} as one MessagePack map."""
        if chunk.extras:
            return self.spelling.pack({**chunk.extras, **actions, "server_timing": server_timing(timing)})
        pieces = [map_header(len(actions) + 1)]
        for key, array in actions.items():
            before, after = self.spelling.around_data(array)
            pieces += (packed_key(key), before, array.tobytes(), after)
        return b"".join((*pieces, packed_key("server_timing"), _pack_timing(timing)))

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        """One text frame, which these clients raise; detail (a traceback) follows it if there is one."""
        text = f"{error.code}: {error}" + (f"\n{detail}" if detail else "")
        if not isinstance(error, WrongDialect) and (error.blame == "client" or error.retryable):
            return ErrorReply(text)
        return ErrorReply(text, close_code_of(error), close_reason(error))

    def write_request(self, observation: Observation) -> Frame:
        return joined(self.request_parts(observation))

    def request_parts(self, observation: Observation) -> list[Part]:
        try:
            return self.spelling.parts(observation)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise WireError("", "arrays, texts and numbers", str(error)) from error

    def read_greeting(self, frame: Frame) -> Mapping[str, Any]:
        return self._read_map(frame)

    def read_reply(self, frame: Frame) -> Reply:
        """Read the actions and server_timing; raises RemoteError for a text frame, which is the server's error."""
        fields = self._read_map(frame)
        actions = next((fields[key] for key in self.action_keys if key in fields), None)
        if actions is None:
            raise WireError(self.action_keys[0], "actions", f"keys {', '.join(fields)}")
        timing = fields.get("server_timing")
        return Reply(actions, timing if isinstance(timing, Mapping) else {}, fields)

    def _read_map(self, frame: Frame) -> dict[str, Any]:
        if isinstance(frame, str):
            raise RemoteError(frame)
        message = unpack(frame, texts=True)
        if not isinstance(message, dict):
            raise WireError("", "a map", type(message).__name__)
        return self._unmarked(message)

    def _unmarked(self, message: Mapping[str, Any], left: ArraysLeft | None = None) -> dict[str, Any]:
        """The message with its arrays; raises WireError if all of it is one array."""
        value = self.spelling.unmark(message, left=left)
        if not isinstance(value, dict):
            raise WireError("", "a map", "an array or a number alone")
        return value


def _pack_timing(timing: Timing) -> bytes:
    """The map of server_timing(), as `msgpack` packs it."""
    stages = timing.infer_ms, _QUEUE, timing.queue_ms, _TOTAL, timing.total_ms
    if timing.prev_total_ms is None:
        return _FIRST_FORM.pack(map_header(3) + _INFER, *stages)
    return _FORM.pack(map_header(4) + _INFER, *stages, _PREV_TOTAL, timing.prev_total_ms)


def server_timing(timing: Timing) -> dict[str, float]:
    """The timing map of a reply; prev_total_ms is absent in a connection's first."""
    stages = {"infer_ms": timing.infer_ms, "queue_ms": timing.queue_ms, "total_ms": timing.total_ms}
    return stages if timing.prev_total_ms is None else {**stages, "prev_total_ms": timing.prev_total_ms}


# What stands before each number: its key, and that a float64 follows.
_INFER, _QUEUE, _TOTAL, _PREV_TOTAL = (
    packed(stage) + b"\xcb" for stage in ("infer_ms", "queue_ms", "total_ms", "prev_total_ms")
)
_FIRST_FORM = struct.Struct(f">{len(_INFER) + 1}sd{len(_QUEUE)}sd{len(_TOTAL)}sd")
_FORM = struct.Struct(f"{_FIRST_FORM.format}{len(_PREV_TOTAL)}sd")
