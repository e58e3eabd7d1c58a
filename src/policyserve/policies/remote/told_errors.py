"""What another server said of a request, as an error of this one: code, blame and retryability stay what they were.

A connection that ended is told as an error which clients know as retryable: `policy_lost`, or `not_ready` before the
first answer, since `connection_lost` is what a client says of its own connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from policyserve.client.address import HOW_TO_GIVE_A_KEY, OR_IN_PYTHON
from policyserve.core.errors import (
    BadAction,
    BadObservation,
    ConnectionLost,
    DeadlineExceeded,
    NotReady,
    Overloaded,
    PolicyFailed,
    PolicyLost,
    PolicyserveError,
    Refusal,
    RemoteError,
    Unavailable,
    WireError,
    WrongDialect,
)

KEY_FLAG = "--remote-key-env NAME"
_REFUSAL = re.compile(r"(?:(?P<path>[^\n]*?): )?expected (?P<expected>.*?), got (?P<got>.*)", re.DOTALL)
_OF_OURS: dict[str, Callable[[str], PolicyserveError]] = {
    kind.code: kind
    for kind in (Unavailable, Overloaded, DeadlineExceeded, NotReady, PolicyLost, PolicyFailed, BadAction)
}
_OF_CLIENTS: dict[str, type[Refusal]] = {kind.code: kind for kind in (BadObservation, WireError)}


def told_error(error: PolicyserveError, is_sendable: bool = True, had_memory: bool = False) -> PolicyserveError:
    """The error that this server gives for what its client of another server raised.

    is_sendable: whether the observation could be written for that server; if not, it is the robot's fault. had_memory:
    whether the session had answers of that server, which may have remembered it.
    """
    if isinstance(error, (ConnectionLost, DeadlineExceeded)):
        return _gone(error, had_memory)
    if isinstance(error, RemoteError):
        return _refused(error)
    if isinstance(error, WireError):
        if is_sendable:
            return _caused(PolicyFailed(f"the remote server's answer cannot be read: {error}"), error)
        return _caused(BadObservation(error.path, error.expected, error.got, error.hint), error)
    return error


def in_words_of_flags(message: str) -> str:
    """A client's error in a command's words: a flag names where a key comes from."""
    return message.replace(HOW_TO_GIVE_A_KEY, KEY_FLAG).replace(OR_IN_PYTHON, "")


def _gone(error: PolicyserveError, had_memory: bool) -> PolicyserveError:
    """A connection that ended or never opened; the next request opens another, which is a new session over there."""
    memory = "; the next request begins a new session there, without what it remembered of this one"
    text = in_words_of_flags(str(error)) + memory * had_memory
    if isinstance(error, DeadlineExceeded):
        return _caused(DeadlineExceeded(text), error)
    return _caused(PolicyLost(text) if had_memory else NotReady(text), error)


def _refused(error: RemoteError) -> PolicyserveError:
    text = in_words_of_flags(str(error).removeprefix(f"{error.code}: "))
    if error.code in _OF_CLIENTS:
        return _caused(_refusal(_OF_CLIENTS[error.code], text), error)
    if error.code == WrongDialect.code:  # this server's settings, and not the robot's message
        return _caused(PolicyFailed(text), error)
    kind = _OF_OURS.get(error.code) or (Unavailable if error.retryable else None)
    return _caused(RemoteError(text, error.close_code, error.code) if kind is None else kind(text), error)


def _refusal(kind: type[Refusal], text: str) -> Refusal:
    found = _REFUSAL.fullmatch(text)
    if found is None:
        return kind("", "what the remote server takes", text)
    return kind(found["path"] or "", found["expected"], found["got"])


def _caused(made: PolicyserveError, cause: PolicyserveError) -> PolicyserveError:
    made.__cause__ = cause
    return made
