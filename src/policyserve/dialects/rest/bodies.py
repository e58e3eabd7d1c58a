"""HTTP bodies as a session's messages: bytes that know what they are part of."""

from __future__ import annotations

from typing import NamedTuple

from policyserve.core.messages import Heard


class Context(NamedTuple):
    """What an answer has to know of its request.

    is_encoded: the body was a text in a map, and so is the answer's. has_plain_errors: errors are HTTP's own.
    """

    is_encoded: bool = False
    has_plain_errors: bool = False


class RequestBody(bytes):
    """A request's body, read before its turn: where it is large, in a thread. family: whose it is; empty: anybody's."""

    heard: Heard
    family: str

    @classmethod
    def of(cls, body: bytes | bytearray, family: str, heard: Heard) -> RequestBody:
        """The body and what was read in it."""
        made = cls(body)
        made.family, made.heard = family, heard
        return made


class ReplyBody(bytes):
    """An answer's body, its status and headers. It is JSON."""

    status: int
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, text: str, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> ReplyBody:
        """The body of this text."""
        return cls.of_bytes(text.encode(), status, headers)

    @classmethod
    def of_bytes(cls, body: bytes | bytearray, status: int, headers: tuple[tuple[str, str], ...]) -> ReplyBody:
        """The body of these bytes, as it came."""
        made = cls(body)
        made.status, made.headers = status, headers
        return made
