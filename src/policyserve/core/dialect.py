"""The seam between bytes and messages: what every wire dialect offers.

Both halves live in one class so that server and client cannot drift apart. A dialect is pure: no socket, no clock.
Bytes in any order give a message or a WireError, never anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from policyserve.core.arrays import Placed
from policyserve.core.errors import PolicyserveError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Frame, Observation, Part, Reply, Request, Timing
from policyserve.core.policy import ActionChunk

_MAX_CLOSE_REASON = 123  # bytes, RFC 6455 section 5.5.1


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """How a dialect tells a peer of an error: a frame, a close, or both."""

    frame: Frame | None = None
    close_code: int | None = None
    close_reason: str = ""


class Dialect(Protocol):
    """One family's wire format.

    `placed`, if given, is filled with the arrays and floats whose data stands in the frame as it is; read_request's
    `limits` bound what a client may send. What a server sends is bounded by the defaults, and may have any number of
    arrays. read_reply is reply_of(reply_fields): which keys are there decides what the reply is, and no number's value.
    """

    name: str
    greets: bool  # the server speaks first

    # The server's half.
    def greeting(self, metadata: Mapping[str, Any]) -> Frame | None: ...
    def read_request(
        self, frame: Frame, placed: list[Placed] | None = None, limits: WireLimits = DEFAULT_LIMITS
    ) -> Request: ...
    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Frame: ...
    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply: ...

    # The client's half.
    def write_request(self, observation: Observation) -> Frame: ...
    def request_parts(self, observation: Observation) -> list[Part]: ...  # the same bytes; large arrays not copied
    def read_greeting(self, frame: Frame) -> Mapping[str, Any]: ...
    def read_reply(self, frame: Frame) -> Reply: ...
    def reply_fields(self, frame: Frame, placed: list[Placed] | None = None) -> dict[str, Any]: ...
    def reply_of(self, fields: dict[str, Any]) -> Reply: ...


class DialectChoice(Protocol):
    """How a connection that names no dialect finds its own."""

    greeter: Dialect  # greets whoever waits for the server's first word

    def settle(self, frame: Frame, greeted: bool, limits: WireLimits = DEFAULT_LIMITS) -> Dialect:
        """The dialect of a connection's first frame; greeted: it came after the greeting. Never raises."""
        ...


def close_code_of(error: PolicyserveError) -> int:
    """1008 for the client's fault, 1013 for what may succeed later, 1011 for ours."""
    if error.blame == "client":
        return 1008
    return 1013 if error.retryable else 1011


def close_reason(error: PolicyserveError) -> str:
    """The error in at most 123 bytes of UTF-8, as a close frame can carry it."""
    encoded = (str(error) or error.code).encode("utf-8", "replace")  # file names bring lone surrogates
    if len(encoded) <= _MAX_CLOSE_REASON:
        return encoded.decode()
    return encoded[: _MAX_CLOSE_REASON - 3].decode("utf-8", "ignore") + "…"
