"""starVLA's dialect: a list of examples, each with pictures that have an order and no names, and answers in envelopes.

    {"examples": [{"image": [array, …], "lang": text, "state": array}], "unnorm_key": text or nil, …}, alone or as
    {"type": "infer", "request_id": text, "payload": the same}

Several examples are a client's own batch. docs/wire/starvla.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.arrays import Array, Placed
from policyserve.core.dialect import ErrorReply, close_reason, error_text
from policyserve.core.errors import BadObservation, PolicyserveError, RemoteError, WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, Heard, Message, Observation, Reply, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.dialects.answers import pack_readable
from policyserve.dialects.conversing import Conversing, by_roles, read_answer_map, read_map
from policyserve.dialects.marked_arrays import OPENPI
from policyserve.dialects.packing import joined, packed
from policyserve.dialects.pieces import parts_of
from policyserve.dialects.policy_facts import cameras_of, chunk_size, image_size

_INFER, _PING = ("infer", "predict_action"), "ping"
_ANSWER = "inference_result"
_MOST_PICTURES = 64  # of an example
_CLOSES = 1011  # as the original does after a message that it cannot decode


class _Envelope(NamedTuple):
    """How to answer. unsupported: the type of a message that is none of the family's. is_batch: of several examples."""

    request_id: str = "default"
    unsupported: str | None = None
    is_batch: bool = False


class StarVLA(Conversing):
    """The dialect's two halves. unnorm_keys: those that the policy lists; empty: any is taken."""

    name = "starvla"

    def __init__(self, unnorm_keys: Sequence[str] = ()) -> None:
        self._unnorm_keys = tuple(unnorm_keys)

    def for_policy(self, metadata: Mapping[str, Any]) -> StarVLA:
        """A policy may list the keys of its statistics; a request with another one is refused then."""
        keys = metadata.get("available_unnorm_keys")
        return StarVLA([key for key in keys if isinstance(key, str)]) if isinstance(keys, (list, tuple)) else self

    def greeted(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the family's clients look for, and the metadata, which goes before."""
        order = ", ".join(f"image[{place}] is {path}" for place, path in enumerate(cameras_of(metadata)))
        facts = {
            "env": "starvla_policy_server",
            "ckpt_path": "",
            "action_chunk_size": chunk_size(metadata),
            "available_unnorm_keys": [],
            "default_unnorm_key": None,
            "training_data_mix": "",
            "training_obs_image_size": image_size(metadata),
            "eval_image_contract": order or "Pictures are taken in the order of the policy's cameras.",
            "action_keys": [],
            "state_keys": [],
        }
        return {**facts, **metadata}

    def read_message(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Heard:
        """Read a request, a ping, or what is none of both and gets an answer that says so."""
        fields, _ = read_map(message, limits, self.name, placed)
        kind, number = fields.pop("type", _INFER[0]), fields.pop("request_id", "default")
        envelope = _Envelope(number if isinstance(number, str) else "default")
        kind = kind if isinstance(kind, str) else type(kind)
        if kind == _PING:
            return Control("ping", envelope)
        if kind not in _INFER:
            told = f"{kind!r:.100}"
            unsupported = envelope._replace(unsupported=told)
            return Unreadable(WireError("type", ", ".join((*_INFER, _PING)), told), unsupported)
        if not isinstance(number, str):
            return Unreadable(WireError("request_id", "a text", type(number).__name__), envelope)
        payload = fields.get("payload", fields)
        try:
            observation, count = self._observation(payload)
        except PolicyserveError as error:
            return Unreadable(error, envelope)
        return Request(observation, context=envelope._replace(is_batch=count > 1))

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: _Envelope | None) -> Message:
        """{status, ok, type, request_id, data: {"actions": (B, T, D), …extras}}; B is the number of examples."""
        envelope = context or _Envelope()
        data = {"actions": _with_axes(chunk.actions, envelope.is_batch), **chunk.extras}
        head = {"status": "ok", "ok": True, "type": _ANSWER, "request_id": envelope.request_id}
        return pack_readable("answer", {**head, "data": data}, OPENPI, self.name)

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> Message:
        """The answer to a ping."""
        return packed({"status": "ok", "ok": True, "type": _PING, "request_id": control.context.request_id})

    def write_refusal(self, error: PolicyserveError, detail: str, context: _Envelope) -> ErrorReply:
        """A map with the error's text; the connection stays, whatever it was."""
        text = error_text(error) + (f"\n{detail}" if detail else "")
        kind = _ANSWER
        if context.unsupported is not None:
            kind, text = "unknown", f"Unsupported message type {context.unsupported}"
        head = {"status": "error", "ok": False, "type": kind, "request_id": context.request_id}
        return ErrorReply(packed({**head, "error": {"message": text}}, unicode_errors="replace"))

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        """A text and a close for what is no message of the family's; a map for all else."""
        if not isinstance(error, WireError):
            return self.write_refusal(error, detail, _Envelope())
        return ErrorReply(error_text(error) + (f"\n{detail}" if detail else ""), _CLOSES, close_reason(error))

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation as one example; its pictures go in the order of `images`."""
        if not isinstance(observation, Mapping):
            return joined(parts_of(observation, OPENPI))
        example = {("lang" if key == "prompt" else key): value for key, value in observation.items()}
        pictures = example.pop("images", None)
        if isinstance(pictures, Mapping):
            example["image"] = list(pictures.values())
        return joined(parts_of({"examples": [example]}, OPENPI))

    def read_reply(self, message: Message) -> Reply:
        """Read the answer to one example: `actions` (T, D)."""
        fields = read_answer_map(message)
        if fields.get("ok") is False:
            error = fields.get("error")
            raise RemoteError(str(error.get("message") if isinstance(error, dict) else error))
        data = fields.get("data")
        actions = data.get("actions") if isinstance(data, dict) else None
        if not isinstance(actions, np.ndarray) or actions.ndim < 3 or len(actions) != 1:
            raise WireError("data/actions", "actions (1, T, D)", f"{actions!r:.60}")
        assert isinstance(data, dict)
        return Reply(actions[0], {}, data)

    def _observation(self, payload: Any) -> tuple[Observation, int]:
        """The observation of all examples, and how many they are."""
        examples = payload.get("examples") if isinstance(payload, dict) else None
        if not isinstance(examples, list) or not examples:
            raise WireError("examples", "a list of one example or more", f"{examples!r:.60}")
        self._check_key(payload.get("unnorm_key"))
        read = [_example(example, f"examples[{place}]") for place, example in enumerate(examples)]
        options = {key: value for key, value in payload.items() if key != "examples" and value is not None}
        return {**(read[0] if len(read) == 1 else _stacked(read)), **options}, len(read)

    def _check_key(self, key: Any) -> None:
        if key is not None and not isinstance(key, str):
            raise WireError("unnorm_key", "a text or nil", type(key).__name__)
        if key is not None and self._unnorm_keys and key not in self._unnorm_keys:
            raise BadObservation("unnorm_key", f"one of {', '.join(self._unnorm_keys)}", f"{key!r:.60}")


def _example(example: Any, path: str) -> dict[str, Any]:
    """One example's observation: pictures as `images/0`, …, the text as `prompt`, the rest under its own name."""
    if not isinstance(example, dict):
        raise WireError(path, "a map", type(example).__name__)
    rest = [("prompt" if key == "lang" else key, value) for key, value in example.items() if key != "image"]
    pictures = enumerate(_listed(example.get("image"), f"{path}/image"))
    observation = by_roles(rest, [(str(place), picture) for place, picture in pictures])
    state = observation.get("state")
    if isinstance(state, np.ndarray) and state.ndim == 2 and len(state) == 1:
        observation["state"] = state[0]
    return observation


def _listed(pictures: Any, path: str) -> Sequence[Any]:
    """The pictures of an example, which may be a list, one, or several in one array."""
    if pictures is None:
        return []
    if not isinstance(pictures, list) and not (isinstance(pictures, np.ndarray) and pictures.ndim > 3):
        return [pictures]
    if len(pictures) > _MOST_PICTURES:  # of no pixels a message may hold any number
        raise WireError(path, f"at most {_MOST_PICTURES} pictures", f"{len(pictures)}")
    return list(pictures)


def _stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The examples of a client's own batch as one observation, with the batch's axis on every array."""
    first = examples[0]
    for place, example in enumerate(examples):
        if example.keys() != first.keys() or _text_of(example) != _text_of(first):
            hint = "send examples with other keys, or another text, in a request of their own"
            raise WireError(f"examples[{place}]", "the keys and the text of the first example", "others", hint)
    return {key: _joined([example[key] for example in examples], key) for key in first}


def _text_of(example: Mapping[str, Any]) -> str | None:
    text = example.get("prompt")
    return text if isinstance(text, str) else None


def _joined(values: Sequence[Any], path: str) -> Any:
    if isinstance(values[0], dict):
        if any(not isinstance(value, dict) or value.keys() != values[0].keys() for value in values):
            raise WireError(path, "as many pictures in every example", "not so many in one")
        return {key: _joined([value[key] for value in values], f"{path}/{key}") for key in values[0]}
    if not isinstance(values[0], np.ndarray):
        return values[0]
    if any(not isinstance(value, np.ndarray) or value.shape != values[0].shape for value in values):
        raise WireError(path, "arrays of one shape in all examples", "arrays of several")
    return np.stack(values)


def _with_axes(actions: Array, is_batch: bool) -> Array:
    """Actions as (B, T, D)."""
    if not is_batch:
        actions = np.atleast_2d(actions)[None]
    return actions[:, None] if actions.ndim == 2 else actions
