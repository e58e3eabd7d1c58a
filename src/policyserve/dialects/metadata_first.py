"""What openpi and Wall-X have in common: the server greets with metadata, a request is a map, an error is a text frame.

An error leaves the connection open, so that a client may mend its observation and go on; only a fault of ours that is
not worth a retry closes it, with 1011.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.dialect import ErrorReply, close_code_of, close_reason
from policyserve.core.errors import PolicyserveError, RemoteError, WireError, WrongDialect
from policyserve.core.messages import Frame, Observation, Reply, Request, Timing
from policyserve.dialects.marked_arrays import Spelling, spelling_of
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

    def read_request(self, frame: Frame) -> Request:
        """Read an observation: a map, nested or flat, of arrays, texts and numbers."""
        message = unpack(frame, texts=True)
        if not isinstance(message, dict):
            raise WireError("", "a map", type(message).__name__)
        other = spelling_of(message) or ("vibe_rl" if "__meta__" in message else self.name)
        if other != self.name:
            raise WrongDialect("", f"{self.name}'s frames", f"{other}'s", f"connect to /{other}")
        return Request(self.spelling.unmark(message))

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        """One text frame, which these clients raise; detail (a traceback) follows it if there is one."""
        text = f"{error.code}: {error}" + (f"\n{detail}" if detail else "")
        if not isinstance(error, WrongDialect) and (error.blame == "client" or error.retryable):
            return ErrorReply(text)
        return ErrorReply(text, close_code_of(error), close_reason(error))

    def write_request(self, observation: Observation) -> Frame:
        try:
            return self.spelling.pack(observation)
        except (TypeError, ValueError, OverflowError) as error:
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
        return self.spelling.unmark(message)


def server_timing(timing: Timing) -> dict[str, float]:
    """The timing map of a reply; prev_total_ms is absent in a connection's first."""
    stages = {"infer_ms": timing.infer_ms, "queue_ms": timing.queue_ms, "total_ms": timing.total_ms}
    return stages if timing.prev_total_ms is None else {**stages, "prev_total_ms": timing.prev_total_ms}
