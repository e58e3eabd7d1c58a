"""vla-eval's dialect: numbered messages in one envelope, and one action for each observation.

    {"type": "observation", "payload": {…}, "seq": 3, "timestamp": 1795881492.2}

The client says hello, which is answered; it says when an episode begins and ends, which is not. An answer repeats its
message's `seq`. An error is an answer, too, and the connection stays. docs/wire/vla_eval.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.dialect import ErrorReply, close_code_of, close_reason, error_text
from policyserve.core.errors import PolicyFailed, PolicyserveError, RemoteError, WireError, WrongDialect, names_told
from policyserve.core.limits import DEFAULT_LIMITS, REPLY_LIMITS, WireLimits
from policyserve.core.messages import (
    Control,
    Heard,
    Message,
    Observation,
    Reply,
    Request,
    Timing,
    Unreadable,
    request_of,
)
from policyserve.core.policy import ActionChunk
from policyserve.dialects.marked_arrays import VLA_EVAL, ArraysLeft
from policyserve.dialects.packing import packed
from policyserve.dialects.recognition import check_family
from policyserve.dialects.sendable import why_not
from policyserve.dialects.unpacking import unpack
from policyserve.dialects.vla_eval_hello import answer_to_hello, hello, is_ours

_OBSERVATION, _ACTION, _ERROR, _HELLO = "observation", "action", "error", "hello"
_BEGIN, _END = "episode_start", "episode_end"
_KINDS = (_OBSERVATION, _HELLO, _BEGIN, _END, _ERROR)
_NEVER = 1e6  # seconds: no clock of these days shows so little, so that it is how long an answer took
_OURS: Mapping[str, tuple[str, ...]] = {"prompt": ("task_description",), "state": ("states", "controller_states")}


class _Envelope(NamedTuple):
    """What an answer repeats of its message: the number, and the time by the client's clock, in seconds."""

    seq: int = 0
    sent_at: float = 0.0


class VlaEval:
    """The dialect's two halves; it has no state, one instance serves everybody."""

    name = "vla_eval"
    greets = False
    carries_jpeg = True
    one_action = True

    # The server's half.

    def greeting(self, metadata: Mapping[str, Any]) -> None:
        """None: the client speaks first."""

    def read_message(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Heard:
        """Read a message of the client's; raises WireError where its number is not known."""
        decoded = _read_map(message, limits)
        envelope = _read_envelope(decoded, self.name)
        try:
            return _heard(decoded, envelope, limits)
        except WireError as error:
            return Unreadable(error, envelope)

    def read_request(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Request:
        """Read an observation; raises WireError for every other message."""
        return request_of(self.read_message(message, limits), "type", f"{_OBSERVATION!r}")

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> bytes:
        """{"actions": float32 (D,)} in the request's envelope, its time moved on by what the server took.

        Raises PolicyFailed for an action beyond float32. Extras have no place: benchmarks take all that they get for
        the action.
        """
        actions = np.asarray(chunk.actions)  # a row of single numbers is none
        if actions.dtype.kind == "f":
            with np.errstate(over="ignore"):
                actions = actions.astype("<f4")
            if not np.isfinite(actions).all() and np.isfinite(chunk.actions).all():
                raise PolicyFailed(
                    "the action cannot be written: vla-eval's actions are float32, and it is beyond them"
                )
        envelope = _Envelope(context.seq, context.sent_at + timing.total_ms / 1e3)
        return _packed(_ACTION, {"actions": actions}, envelope)

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> bytes:
        """As write_answer(), for a message whose number is not known."""
        return self.write_answer(chunk, timing, _Envelope())

    def write_refusal(self, error: PolicyserveError, detail: str, context: Any) -> ErrorReply:
        """{"error": text} in the message's envelope; detail (a traceback) follows the text if there is one."""
        text = error_text(error) + (f"\n{detail}" if detail else "")
        return ErrorReply(_packed(_ERROR, {"error": text}, context))

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        """As write_refusal(), numbered 0; another family's client is told so and sent away."""
        told = self.write_refusal(error, detail, _Envelope())
        if isinstance(error, WrongDialect):
            return ErrorReply(told.message, close_code_of(error), close_reason(error))
        return told

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> bytes | None:
        """Answer a hello; clients would take an answer to anything else for that to their next observation."""
        return _packed(_HELLO, answer_to_hello(metadata), control.context) if control.kind == _HELLO else None

    def mark_of(self, message: Message) -> int | None:
        """The number that an answer repeats; None where there is none. In a live episode not all are answered."""
        try:
            number = _read_map(message, REPLY_LIMITS).get("seq")
        except WireError:
            return None
        return number if type(number) is int else None

    # The client's half.

    def opening(self) -> tuple[bytes, ...]:
        """A hello, which is answered, and that an episode begins: a connection of ours is one."""
        begin = {"task": {"name": "policyserve"}}
        return _packed(_HELLO, hello(), _Envelope(1)), _packed(_BEGIN, begin, _Envelope(2))

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation, all numbered alike: each is sent when the one before is answered, or was given up."""
        try:
            return _packed(_OBSERVATION, observation, _Envelope(3))
        except Exception as error:  # a stranger's objects, whose conversion may raise anything
            refusal = why_not(observation, VLA_EVAL.write)
            raise refusal or WireError("", "arrays, texts and numbers", str(error)) from error

    def read_greeting(self, message: Message) -> Mapping[str, Any]:
        """Read the answer to a hello."""
        return _payload_of(message, _HELLO)[0]

    def takes_jpeg(self, metadata: Mapping[str, Any]) -> bool:
        """vla-eval's own servers decode JPEGs without saying so; one of ours says it, or cannot."""
        return not is_ours(metadata)

    def read_reply(self, message: Message) -> Reply:
        """Read an action, or a chunk of them: of servers that send whole ones."""
        payload, sent_at = _payload_of(message, _ACTION)
        for key in ("actions", _ACTION):
            if payload.get(key) is not None:
                # Ours moves on the time of the request, which is zero.
                timing = {"latency_ms": sent_at * 1e3} if 0 <= sent_at < _NEVER else {}
                return Reply(payload[key], timing, payload)
        raise WireError("payload/actions", "an action", f"keys {names_told(payload)}")


def _read_map(message: Message, limits: WireLimits) -> dict[str, Any]:
    decoded = unpack(message, texts=True, limits=limits)
    if not isinstance(decoded, dict):
        raise WireError("", "a map", type(decoded).__name__)
    return decoded


def _read_envelope(decoded: Mapping[str, Any], name: str) -> _Envelope:
    seq, sent_at = decoded.get("seq"), decoded.get("timestamp")
    if type(seq) is not int:
        check_family(decoded, name)
        raise WireError("seq", "the message's number, an int", type(seq).__name__ if "seq" in decoded else "none")
    return _Envelope(seq, float(sent_at) if isinstance(sent_at, (int, float)) else 0.0)


def _heard(decoded: Mapping[str, Any], envelope: _Envelope, limits: WireLimits) -> Heard:
    for key in ("type", "payload", "timestamp"):
        if key not in decoded:
            raise WireError(key, "a message with type, payload, seq and timestamp", f"keys {names_told(decoded)}")
    kind, payload = decoded["type"], decoded["payload"]
    if kind == _OBSERVATION:
        return Request(_named(_unmarked(payload, ArraysLeft(limits.max_arrays))), context=envelope)
    if kind in (_BEGIN, _END):
        is_live = isinstance(payload, dict) and payload.get("mode") == "live"
        return Control(kind, envelope, ends="", newest_only=is_live)
    if kind not in _KINDS:
        raise WireError("type", f"one of {', '.join(_KINDS)}", f"{kind!r:.40}")
    return Control(kind, envelope)


def _unmarked(payload: Any, left: ArraysLeft | None = None) -> dict[str, Any]:
    """A payload with its arrays; raises WireError if it is no map, or one array."""
    found = VLA_EVAL.unmark(payload, left) if isinstance(payload, dict) else payload
    if not isinstance(found, dict):
        raise WireError("payload", "a map", type(found).__name__)
    return found


def _named(payload: dict[str, Any]) -> dict[str, Any]:
    """The observation by this package's names, where the harness has others for them."""
    for name, theirs in _OURS.items():
        found = next((other for other in theirs if other in payload), None)
        if found is not None and name not in payload:
            payload[name] = payload.pop(found)
    return payload


def _payload_of(message: Message, kind: str) -> tuple[dict[str, Any], float]:
    """The payload of a server's message and its time; raises RemoteError for its error, WireError if it is another."""
    decoded = _read_map(message, REPLY_LIMITS)
    found, payload, sent_at = decoded.get("type"), decoded.get("payload"), decoded.get("timestamp")
    if found == _ERROR and isinstance(payload, dict):
        raise RemoteError(f"{payload.get('error')}")
    if found != kind:
        raise WireError("type", f"{kind!r}", f"{found!r:.40}" if "type" in decoded else f"keys {names_told(decoded)}")
    return _unmarked(payload), sent_at if isinstance(sent_at, float) else -1.0


def _packed(kind: str, payload: Mapping[str, Any], envelope: _Envelope) -> bytes:
    message = {"type": kind, "payload": payload, "seq": envelope.seq, "timestamp": envelope.sent_at}
    return packed(message, default=VLA_EVAL.write)
