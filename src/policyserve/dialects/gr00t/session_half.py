"""The server's half of GR00T's dialect, as one session speaks it with one policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.dialect import ErrorReply, error_text
from policyserve.core.errors import PolicyFailed, PolicyserveError, WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, Heard, Message, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec
from policyserve.dialects.gr00t.envelope import (
    ENDPOINTS,
    GET_ACTION,
    Context,
    Envelope,
    open_envelope,
    told_unknown,
    unknown_endpoint,
    unmarked,
)
from policyserve.dialects.gr00t.groups import as_float32, parts_of, squeezed
from policyserve.dialects.gr00t.modality import modality_config
from policyserve.dialects.gr00t.observations import fitted, has_batch, is_several, read_parts
from policyserve.dialects.gr00t.spellings import NPY, spelling_shown
from policyserve.dialects.packing import packed
from policyserve.dialects.readable import check_readable

RUNNING = {"status": "ok", "message": "Server is running"}


class SessionHalf:
    """Reads what one session's client sends, and answers it as the request was written.

    is_n15: whether the client is one of N1.5, whose modality configs are other ones; its observations show it.
    """

    one_action = False

    def __init__(self, spec: PolicySpec, is_n15: bool = False) -> None:
        self._spec = spec
        self._is_n15 = is_n15

    def read_message(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Heard:
        """Read a request of any endpoint; raises WireError for what is none at all."""
        envelope = open_envelope(message, limits)
        endpoint = envelope.endpoint
        context = Context(endpoint)
        if endpoint not in ENDPOINTS:
            return Unreadable(unknown_endpoint(endpoint), context)
        if endpoint == "reset":
            return Control(endpoint, context, ends="")
        if endpoint != GET_ACTION:
            return Control(endpoint, context)
        return self._read_observation(envelope, limits)

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> Message:
        """The parts of the actions, in the request's spelling; what else the policy says stands in N1.6's second map.

        Raises PolicyFailed.
        """
        context = context if isinstance(context, Context) else Context(GET_ACTION)
        parts = parts_of(chunk.actions, self._spec, context.is_several)
        spelling = context.spelling or NPY
        if not context.is_nested:
            told = {f"action.{name}": part if context.has_batch else squeezed(part) for name, part in parts.items()}
            return spelling.pack(told)
        try:
            check_readable(chunk.extras, spelling)
        except WireError as error:
            raise PolicyFailed(f"the answer cannot be read by gr00t's clients: {error}") from error
        floats = {name: as_float32(part) for name, part in parts.items()}
        named = {f"action.{name}": part for name, part in floats.items()} if context.is_flat else floats
        return packed([named, dict(chunk.extras)], default=spelling.write)

    def write_refusal(self, error: PolicyserveError, detail: str, context: Any) -> ErrorReply:
        """`{"error": text}`, which these clients raise."""
        if isinstance(context, Context) and context.endpoint not in (*ENDPOINTS, "kill"):
            return ErrorReply(told_error(told_unknown(context.endpoint)))
        return ErrorReply(told_error(error_text(error) + (f"\n{detail}" if detail else "")))

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> Message | None:
        """Answer `ping`, `reset` and `get_modality_config`."""
        if control.kind == "ping":
            return packed(RUNNING)
        if control.kind == "get_modality_config":
            return packed(modality_config(self._spec, self._is_n15))
        return packed({})

    def _read_observation(self, envelope: Envelope, limits: WireLimits) -> Heard:
        data = envelope.data
        if not isinstance(data, dict):
            got = "nothing" if data is None else type(data).__name__
            return Unreadable(WireError("data", "an observation, a map", got), Context(GET_ACTION))
        spelling = spelling_shown(data)
        is_nested = isinstance(data.get("observation"), dict)
        context = Context(GET_ACTION, spelling, is_nested)
        try:
            decoded = unmarked({"data": data}, spelling or NPY, limits)["data"]
            path = "data/observation" if is_nested else "data"
            told = decoded.get("observation") if is_nested and isinstance(decoded, dict) else decoded
            if not isinstance(told, dict):  # its keys marked it as an array, or a picture
                raise WireError(path, "an observation, a map", type(told).__name__)
            parts, rest = read_parts(told, path)
            is_batched = is_nested or has_batch(parts)
            observation = fitted(parts, self._spec, is_batched)
        except PolicyserveError as error:
            return Unreadable(error, context)
        self._is_n15 = not is_nested
        is_flat = all(part.is_flat for part in parts)
        several = is_batched and is_several(parts)
        context = context._replace(is_flat=is_flat, has_batch=is_batched, is_several=several)
        return Request({**rest, **observation}, context=context)


def told_error(text: str) -> bytes:
    """An error as GR00T's clients read it."""
    return packed({"error": text})
