"""What the families that ask by HTTP have in common: a request is one JSON map, and knows nothing of the one before.

A family is a ConversingDialect whose messages are bodies. Each request begins an episode: clients keep connections
open and share them, so that a connection is no robot's episode, and nothing of one request may reach the next.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.dialect import ErrorReply
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import PolicyserveError, WireError, names_told
from policyserve.core.leaf_specs import name_of
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
from policyserve.dialects import action_groups
from policyserve.dialects.conversing import told_timing
from policyserve.dialects.marked_arrays import ArraysLeft
from policyserve.dialects.rest import json_numpy
from policyserve.dialects.rest.asking import raise_refusal
from policyserve.dialects.rest.bodies import Context, ReplyBody, RequestBody
from policyserve.dialects.rest.json_text import read_json
from policyserve.dialects.rest.plain_errors import plain_error

RESET = "reset"
_NOT_OPENED = "a path or a URL is never opened here: send the picture itself"


class Family:
    """One family's bodies, both ways. It has no state, one instance serves everybody."""

    greets = False
    one_action = False
    is_spaced = False  # whether an answer's JSON has spaces
    name: str

    # What a family says.

    @abstractmethod
    def observation(self, fields: dict[str, Any], limits: WireLimits) -> Observation:
        """The observation of a body, whose marked arrays were read; raises WireError with the path of what is wrong."""

    @abstractmethod
    def answer(self, chunk: ActionChunk, timing: Timing) -> Any:
        """What the answer's JSON is made of: maps, lists, numbers, texts and arrays, which are marked."""

    @abstractmethod
    def refusal(self, error: PolicyserveError, detail: str) -> ReplyBody:
        """An error as the family's own servers tell it."""

    @abstractmethod
    def body(self, observation: Observation) -> Any:
        """What a client's JSON is made of; raises WireError with the path of what the family's has no place for."""

    # The server's half of a dialect.

    def greeting(self, metadata: Mapping[str, Any]) -> None:
        """None: the client asks."""

    def read(self, fields: dict[str, Any], limits: WireLimits, context: Context) -> Heard:
        """The request that a body is, whose JSON was read and unwrapped; a WireError is heard and not raised."""
        try:
            unmarked = json_numpy.unmarked(fields, ArraysLeft(limits.max_arrays))
            if not isinstance(unmarked, dict):
                raise WireError("", "a map", "an array alone")
            return Request(self.observation(unmarked, limits), context=context, begins=True)
        except PolicyserveError as error:
            return Unreadable(error, context)

    def read_message(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Heard:
        if isinstance(message, RequestBody):
            return message.heard
        fields, is_encoded = unwrapped(message, limits)
        return self.read(fields, limits, Context(is_encoded))

    def read_request(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Request:
        return request_of(self.read_message(message, limits))

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> ReplyBody:
        answer = self.answer(chunk, timing)
        if context.is_encoded:
            return ReplyBody.of(json.dumps(json_numpy.written(answer, is_spaced=True)))
        return ReplyBody.of(json_numpy.written(answer, self.is_spaced))

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> ReplyBody:
        return self.write_answer(chunk, timing, Context())

    def write_refusal(self, error: PolicyserveError, detail: str, context: Any) -> ErrorReply:
        return ErrorReply(plain_error(error, detail) if context.has_plain_errors else self.refusal(error, detail))

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        """What concerns no request, such as a policy that could not be loaded."""
        return ErrorReply(plain_error(error, detail))

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> ReplyBody:
        """To a reset: there is nothing to forget, since each request begins anew."""
        return ReplyBody.of('{"status":"ok"}')

    # The client's half.

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation as the family's own clients do; raises WireError for what its JSON cannot hold."""
        if not isinstance(observation, Mapping) or not observation:
            raise WireError("", "a map of arrays, texts and numbers", f"{observation!r:.60}")
        try:
            return json_numpy.written(self.body(observation), is_spaced=True).encode()
        except (TypeError, ValueError) as error:
            raise WireError("", "arrays, texts and finite numbers", f"{error}") from error

    def read_greeting(self, message: Message) -> NoReturn:
        raise WireError("", "no message before the first request", "one")

    def read_reply(self, message: Message) -> Reply:
        """Read an answer of any family; raises RemoteError for a refusal, WireError for what is no answer."""
        raise_refusal(message)
        value = read_json(message, REPLY_LIMITS)
        if isinstance(value, str):
            value = read_json(value, REPLY_LIMITS) if value.startswith(("{", "[")) else value
        value = json_numpy.unmarked(value, ArraysLeft(1 << 20))
        fields = value if isinstance(value, dict) else {"actions": value}
        for key in ("actions", "action"):
            if isinstance(fields.get(key), (list, np.ndarray)):
                return Reply(np.asarray(fields[key]), told_timing(fields.get("server_timing")), fields)
        parts = {key: inner for key, inner in fields.items() if key.startswith("action.")}
        if parts:
            axes = max(np.ndim(part) for part in parts.values())  # a part of one number has lost its last one
            whole = {key: part if np.ndim(part) == axes else np.asarray(part)[..., None] for key, part in parts.items()}
            return Reply(action_groups.side_by_side(whole), {}, fields)
        raise WireError("", "actions", f"keys {names_told(fields)}" if isinstance(value, dict) else name_of(value))


def unwrapped(body: Message, limits: WireLimits) -> tuple[dict[str, Any], bool]:
    """The map of a body, and whether it was a text in a map; raises WireError."""
    value = read_json(body, limits)
    if not isinstance(value, dict):
        raise WireError("", "a JSON map", f"a {type(value).__name__}", SHAPES)
    encoded = value.get(json_numpy.ENCODED)
    if len(value) != 1 or not isinstance(encoded, str):
        return value, False
    inner = read_json(encoded, limits)
    if not isinstance(inner, dict):
        raise WireError(json_numpy.ENCODED, "the text of a JSON map", f"a {type(inner).__name__}'s")
    return inner, True


SHAPES = (
    "bodies are told by their keys: image, instruction (OpenVLA); full_image, state, instruction (OpenVLA-OFT); "
    "image0, proprio, language_instruction, domain_id (X-VLA); top_cam, left_cam, right_cam, num_steps (MolmoAct2); "
    "observation (GR00T); or plain: state, image, prompt"
)


def picture(value: Any, path: str) -> Array | EncodedImage:
    """A picture, as an array or encoded; raises WireError, of a text too: it would be a path or a URL."""
    if isinstance(value, (np.ndarray, EncodedImage)):
        return value
    hint = _NOT_OPENED if isinstance(value, str) else ""
    raise WireError(path, "a picture, an array", name_of(value) if value is not None else "none", hint)


def text(value: Any, path: str) -> str:
    """A text; raises WireError."""
    if isinstance(value, str):
        return value
    raise WireError(path, "a text", name_of(value) if value is not None else "none")


def renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The fields that have another name here, and those that keep theirs."""
    return {names.get(key, key): value for key, value in fields.items()}


def steps(actions: Array) -> Array:
    """Actions with an axis of steps, of one where they had none."""
    return actions[None] if actions.ndim < 2 else actions
