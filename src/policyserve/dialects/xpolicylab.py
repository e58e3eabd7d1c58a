"""XPolicyLab's dialect: pairs of messages in an envelope, and chunks whose columns have names.

    {"message_type": "infer", "evaluation_id": …, …, "step": 0, "sent_at": …, "message_id": …, "payload": {…}}

The client says hello, prepares a case, resets and ends trials, each of which is answered with its ids. A trial is an
episode. An error is an answer, too, and the connection stays. docs/wire/xpolicylab.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.dialect import ErrorReply, close_code_of, close_reason, error_text
from policyserve.core.errors import (
    DeadlineExceeded,
    PolicyFailed,
    PolicyserveError,
    RemoteError,
    WireError,
    WrongDialect,
    names_told,
)
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
from policyserve.dialects.action_groups import side_by_side
from policyserve.dialects.column_groups import ARM, check_groups, groups_of_state
from policyserve.dialects.marked_arrays import MSGPACK_NUMPY, ArraysLeft
from policyserve.dialects.packing import packed
from policyserve.dialects.recognition import check_family
from policyserve.dialects.sendable import why_not
from policyserve.dialects.unpacking import unpack

_HELLO, _INFER, _RESET, _END, _CLOSE, _ERROR = "hello", "infer", "reset", "trial_end", "close", "error"
_ANSWERS = {
    _HELLO: "hello_ack",
    "prepare_case": "prepare_case_ack",
    _RESET: "reset_result",
    _INFER: "infer_result",
    _END: "trial_end_ack",
    "heartbeat": "heartbeat_ack",
}
_IDS = ("evaluation_id", "action_case_id", "trial_id", "repeat_index", "step", "sent_at", "message_id")
_REPEATED = frozenset((str, int, type(None)))
_LONGEST = 256  # letters of what is repeated


class _Envelope(NamedTuple):
    """What an answer repeats of its message, by name; the widths of the joint states that an observation had."""

    kind: str
    ids: Mapping[str, Any]
    groups: Mapping[str, int]


# A client's messages are numbered alike: each is sent when the one before is answered, or was given up.
_OUR_IDS = {"evaluation_id": "policyserve", "trial_id": "1", "step": 0, "sent_at": "", "message_id": "1"}
_OURS = _Envelope(_INFER, _OUR_IDS, {})


@dataclass(frozen=True)
class XPolicyLab:
    """The dialect's two halves. groups: an action's columns, as the policy names them; empty: as the request has."""

    groups: tuple[tuple[str, int], ...] = ()

    name = "xpolicylab"
    greets = False
    one_action = False

    # The server's half.

    def for_policy(self, metadata: Mapping[str, Any]) -> XPolicyLab:
        """Name columns as the policy's metadata say, `{"xpolicylab": {"actions": {"ee_pose": 7}}}`.

        Raises WireError with the path of what is no such map.
        """
        declared = metadata.get(self.name)
        return XPolicyLab(check_groups(declared, f"{self.name}/actions")) if declared is not None else self

    def greeting(self, metadata: Mapping[str, Any]) -> None:
        """None: the client speaks first."""

    def read_message(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Heard:
        """Read a message of the client's; raises WireError where it has no id that an answer could repeat."""
        decoded = unpack(message, texts=True, limits=limits)
        if not isinstance(decoded, dict):
            raise WireError("", "a map", type(decoded).__name__)
        envelope = _read_envelope(decoded, self.name)
        try:
            return _heard(decoded, envelope, limits)
        except WireError as error:
            return Unreadable(error, envelope)

    def read_request(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Request:
        """Read an observation; raises WireError for every other message."""
        return request_of(self.read_message(message, limits), "message_type", f"{_INFER!r}")

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> bytes:
        """{"actions": a map of named columns for each step, "latency_ms": …} with the request's ids.

        Raises PolicyFailed where neither the policy nor the request's states tell which columns are what.
        """
        rows = np.atleast_2d(chunk.actions)  # (T, D)
        groups = self.groups or tuple(context.groups.items())
        if rows.ndim != 2 or sum(width for _, width in groups) != rows.shape[1]:
            told = ", ".join(f"{name} ({width})" for name, width in groups) or "no joint state"
            whose = "the policy's metadata name" if self.groups else "the request has"
            cure = 'say which columns are what: PolicySpec(metadata={"xpolicylab": {"actions": {"ee_pose": 7}}})'
            got = f"actions of shape {chunk.actions.shape}, of which {whose} {told}"
            raise PolicyFailed(f"expected actions whose columns have names, got {got}; {cure}")
        ends = np.cumsum([width for _, width in groups])
        steps = [
            {name: row[end - width : end] for (name, width), end in zip(groups, ends, strict=True)} for row in rows
        ]
        return _packed(_ANSWERS[_INFER], {"actions": steps, "latency_ms": timing.total_ms}, context)

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> bytes:
        """As write_answer(), for a message not known: all columns are an arm's where none are declared."""
        return self.write_answer(chunk, timing, _Envelope(_INFER, {}, {ARM: np.atleast_2d(chunk.actions).shape[-1]}))

    def write_refusal(self, error: PolicyserveError, detail: str, context: Any) -> ErrorReply:
        """{"code", "message", "details"} with the message's ids; detail (a traceback) follows the message."""
        text = error_text(error) + (f"\n{detail}" if detail else "")
        told = {"code": _code_of(error, context.kind), "message": text, "details": {}}
        return ErrorReply(_packed(_ERROR, told, context))

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        """Say nothing of a message without an id: no client would know whose answer that is. Else close."""
        if isinstance(error, WireError) and not isinstance(error, WrongDialect):
            return ErrorReply()
        return ErrorReply(None, close_code_of(error), close_reason(error))

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> bytes | None:
        """Acknowledge what a client says; nobody waits for an answer to a close."""
        if control.kind == _CLOSE:
            return None
        payload = {"ok": True, "server": "policyserve"} if control.kind == _HELLO else {"ok": True}
        return _packed(_ANSWERS[control.kind], payload, control.context)

    def mark_of(self, message: Message) -> str | None:
        """The id that an answer repeats; None where there is none. The family's servers answer in any order."""
        try:
            decoded = unpack(message, texts=True, limits=REPLY_LIMITS)
        except WireError:
            return None
        number = decoded.get("message_id") if isinstance(decoded, dict) else None
        return number if isinstance(number, str) else None

    # The client's half.

    def opening(self) -> tuple[bytes, ...]:
        """A hello, which is answered."""
        return (_packed(_HELLO, {}, _OURS),)

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation: `images` as cameras' colours, `prompt` as `instruction`, a lone `state` as an arm."""
        try:
            return _packed(_INFER, {"observation": _theirs(observation)}, _OURS)
        except Exception as error:  # a stranger's objects, whose conversion may raise anything
            refusal = why_not(observation, MSGPACK_NUMPY.write)
            raise refusal or WireError("", "arrays, texts and numbers", str(error)) from error

    def read_greeting(self, message: Message) -> Mapping[str, Any]:
        """Read the answer to a hello."""
        return _payload_of(message, _ANSWERS[_HELLO])

    def read_reply(self, message: Message) -> Reply:
        """Read a chunk, (T, D): of each step the columns side by side, in their order."""
        payload = _payload_of(message, _ANSWERS[_INFER])
        steps = payload.get("actions")
        if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
            raise WireError("payload/actions", "a list of steps, each a map of columns", f"{steps!r:.60}")
        try:
            actions = np.stack([np.atleast_1d(side_by_side(step)) for step in steps])
        except ValueError as error:
            raise WireError("payload/actions", "the same columns in every step", "others in one") from error
        latency_ms = payload.get("latency_ms")
        return Reply(actions, {"latency_ms": latency_ms} if isinstance(latency_ms, float) else {}, payload)


def _read_envelope(decoded: Mapping[str, Any], name: str) -> _Envelope:
    ids = {key: decoded.get(key) for key in _IDS}
    if type(ids["message_id"]) is not str or "message_type" not in decoded:
        check_family(decoded, name)
        raise WireError("message_id", "a message with message_type and message_id", f"keys {names_told(decoded)}")
    for key, value in ids.items():
        if type(value) not in _REPEATED or (type(value) is str and len(value) > _LONGEST):
            raise WireError(key, f"a number, or a text of at most {_LONGEST} letters", type(value).__name__)
    return _Envelope(str(decoded["message_type"])[:_LONGEST], ids, {})


def _heard(decoded: Mapping[str, Any], envelope: _Envelope, limits: WireLimits) -> Heard:
    kind, payload = envelope.kind, decoded.get("payload") or {}
    if envelope.ids["evaluation_id"] is None:
        raise WireError("evaluation_id", "an id", "none")
    if kind not in _ANSWERS and kind != _CLOSE:
        raise WireError("message_type", f"one of {', '.join(_ANSWERS)}, {_CLOSE}", f"{kind!r:.40}")
    if not isinstance(payload, dict):
        raise WireError("payload", "a map", type(payload).__name__)
    trial = _trial(envelope, payload)
    if kind == _INFER:
        observation = payload.get("observation")
        found = MSGPACK_NUMPY.unmark(observation, ArraysLeft(limits.max_arrays)) if observation is not None else None
        if not isinstance(found, dict):
            raise WireError("payload/observation", "a map", type(found).__name__)
        groups = groups_of_state(found.get("state"))
        return Request(_named(found), context=envelope._replace(groups=groups), episode=trial)
    return Control(kind, envelope, ends=trial if kind in (_RESET, _END) else None, closes=kind == _CLOSE)


def _trial(envelope: _Envelope, payload: Mapping[str, Any]) -> str:
    """The episode's name. A reset may name its trial in the payload alone."""
    named = envelope.ids["trial_id"]
    trial = named if named is not None else payload.get("trial_id")
    if type(trial) not in _REPEATED or len(f"{trial}") > _LONGEST:
        raise WireError("payload/trial_id", f"a text of at most {_LONGEST} letters", type(trial).__name__)
    return "" if trial is None else f"{trial}"


def _named(observation: dict[str, Any]) -> dict[str, Any]:
    """The observation by this package's names: `images/<camera>` for `vision/<camera>/color`, `prompt`."""
    vision = observation.get("vision")
    if isinstance(vision, dict) and "images" not in observation:
        pictures = {name: camera.pop("color") for name, camera in vision.items() if _has_color(camera)}
        vision = {name: camera for name, camera in vision.items() if camera != {}}
        observation = {**observation, "images": pictures, "vision": vision}
        if not vision:
            del observation["vision"]
    if "instruction" in observation and "prompt" not in observation:
        observation["prompt"] = observation.pop("instruction")
    return observation


def _theirs(observation: Observation) -> dict[str, Any]:
    """The observation by the wire's names: what _named() makes, undone."""
    written = {("instruction" if key == "prompt" else key): value for key, value in observation.items()}
    if isinstance(written.get("images"), Mapping) and "vision" not in written:
        pictures = written.pop("images")
        written = {"vision": {name: {"color": picture} for name, picture in pictures.items()}, **written}
    if isinstance(written.get("state"), np.ndarray):
        written["state"] = {ARM: written["state"]}
    return written


def _payload_of(message: Message, kind: str) -> dict[str, Any]:
    """The payload of a server's message, with its arrays; raises RemoteError for its error, WireError for another."""
    decoded = unpack(message, texts=True, limits=REPLY_LIMITS)
    fields = MSGPACK_NUMPY.unmark(decoded) if isinstance(decoded, dict) else decoded
    payload = fields.get("payload") if isinstance(fields, dict) else None
    if not isinstance(payload, dict):
        raise WireError("payload", "a map", type(payload).__name__)
    found = fields.get("message_type")
    if found == _ERROR:
        raise RemoteError(f"{payload.get('message')}")
    if found != kind:
        raise WireError("message_type", f"{kind!r}", f"{found!r:.40}")
    return payload


def _has_color(camera: Any) -> bool:
    return isinstance(camera, dict) and "color" in camera


def _code_of(error: PolicyserveError, kind: str) -> str:
    """What the protocol calls an error of a message of this kind."""
    if kind not in _ANSWERS and kind != _CLOSE:
        return "unknown_message_type"
    if isinstance(error, WireError):
        return "invalid_frame"
    if isinstance(error, DeadlineExceeded):
        return "timeout"
    return {_INFER: "infer_failed", _RESET: "reset_failed"}.get(kind, "internal")


def _packed(kind: str, payload: Mapping[str, Any], envelope: _Envelope) -> bytes:
    ids = {key: envelope.ids.get(key) for key in _IDS}
    return packed({"message_type": kind, **ids, "payload": payload}, default=MSGPACK_NUMPY.write)
