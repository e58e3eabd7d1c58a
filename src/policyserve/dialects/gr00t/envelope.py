"""What stands around an observation in a message of GR00T's clients: the endpoint, a token, and how to answer."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message
from policyserve.dialects.marked_arrays import ArraysLeft, Spelling
from policyserve.dialects.unpacking import unpack

GET_ACTION = "get_action"
ENDPOINTS = (GET_ACTION, "reset", "get_modality_config", "ping")
_ARCHIVE = b"PK"  # what torch.save() makes begins so, and holds a pickle
# The key of a token, and how MessagePack says how long a string or a bin is.
_BEFORE_TOKEN = rb"(?s:api_token(?:[\xa0-\xbf]|[\xd9\xc4].|[\xda\xc5]..|[\xdb\xc6]....))"
_SHOWN = 60  # letters of a stranger's text


class Envelope(NamedTuple):
    """A message as it is: data undecoded but for MessagePack, arrays still marked maps."""

    endpoint: str
    token: str
    data: Any


class Context(NamedTuple):
    """How to answer a request: the context of everything that a session answers.

    spelling: of its arrays; None: it has none. is_nested: the observation stood in `observation`, as N1.6 and N1.7 have
    it. is_flat: its parts had names such as `state.arm`. has_batch: its arrays had a batch axis. is_several: a batch
    that is not one.
    """

    endpoint: str
    spelling: Spelling | None = None
    is_nested: bool = False
    is_flat: bool = False
    has_batch: bool = False
    is_several: bool = False


def open_envelope(message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Envelope:
    """Read what stands around the observation; raises WireError."""
    if not isinstance(message, str) and bytes(message[: len(_ARCHIVE)]) == _ARCHIVE:
        hint = "it holds a pickle and is not opened: update the client, to GR00T of September 2025 or later"
        raise WireError("", "a MessagePack map", "an archive of torch.save()", hint)
    decoded = unpack(message, texts=True, limits=limits)
    if not isinstance(decoded, dict):
        raise WireError("", "a map", type(decoded).__name__)
    endpoint, token = decoded.get("endpoint", GET_ACTION), decoded.get("api_token")
    if not isinstance(endpoint, str):
        raise WireError("endpoint", "a text", type(endpoint).__name__)
    return Envelope(endpoint, token if isinstance(token, str) else "", decoded.get("data"))


def token_of(message: Message, limits: WireLimits = DEFAULT_LIMITS) -> str:
    """The API key in a message; empty where there is none. Never raises."""
    try:
        return open_envelope(message, limits).token
    except WireError:
        return ""


def without_token(message: memoryview, token: str) -> memoryview:
    """The message with stars for its token, so that none is recorded or shown; as it is without one.

    What else has the same letters stays: a client may say `api_token="robot"`, and mean the robot in its task.
    """
    told = token.encode()
    places = [found.span(1) for found in re.finditer(_BEFORE_TOKEN + b"(" + re.escape(told) + b")", message)]
    if not told or not places:
        return message
    hidden = bytearray(message)
    for start, end in places:
        hidden[start:end] = b"*" * (end - start)
    return memoryview(hidden)


def unmarked(data: Any, spelling: Spelling, limits: WireLimits) -> Any:
    """The data with its arrays; raises WireError with the path of what is wrong."""
    return spelling.unmark(data, ArraysLeft(limits.max_arrays))


def unknown_endpoint(endpoint: str) -> WireError:
    """The refusal of an endpoint that is not served; `kill` is none that ever will be."""
    if endpoint == "kill":
        return WireError("endpoint", f"one of {', '.join(ENDPOINTS)}", "kill", "no client may stop this server")
    return WireError("endpoint", f"one of {', '.join(ENDPOINTS)}", endpoint[:_SHOWN])


def told_unknown(endpoint: str) -> str:
    """What the original server says of an endpoint that it does not know."""
    return f"Unknown endpoint: {endpoint[:_SHOWN]}"
