"""The client's half of a conversation: writes requests, reads replies, and names the cause of an end. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from policyserve import dialects
from policyserve.client.address import OF_GRPC, OF_ZMQ
from policyserve.core.arrays import Array
from policyserve.core.dialect import Dialect, code_in_text, opening_of, read_close_reason, request_writer
from policyserve.core.errors import (
    BadAction,
    ConnectionLost,
    DeadlineExceeded,
    PolicyserveError,
    RemoteError,
    WireError,
    WrongDialect,
)
from policyserve.core.messages import Message, Observation, Part, Reply
from policyserve.core.reading import ReplyReader

if TYPE_CHECKING:
    from policyserve.client.images import ImageSender

_GONE_CODES = {1000, 1001, 1005, 1006, 1012}  # an end that is no answer to a request
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_OURS = "policyserve"  # the key of a greeting that a policyserve server sets


class ClientSession:
    """One connection's dialect and greeting.

    url: the server's, for errors. check_actions: refuse NaN and Inf of servers that may not have looked.
    images: what is done with pictures before they are sent; None: nothing.
    """

    def __init__(
        self, dialect: Dialect, url: str, check_actions: bool = True, images: ImageSender | None = None
    ) -> None:
        self.dialect = dialect
        self._url = url
        self.metadata: Mapping[str, Any] = _NOTHING
        self._replies = ReplyReader(dialect)
        self._write = request_writer(dialect)
        self.may_close = False  # the last answer was an error: some servers close behind it
        self._is_answered = False
        self.opening = opening_of(dialect)  # messages to send before the greeting is read
        self.is_greeted = dialect.greets or bool(self.opening)
        self._checks_actions = check_actions
        self._images = images

    def on_greeting(self, message: Message) -> None:
        """Read the server's first message, where the dialect has one, or its answer to the opening."""
        self.metadata = self.dialect.read_greeting(message)
        if _OURS in self.metadata:  # it refuses such actions itself
            self._checks_actions = False

    def on_connected(self) -> None:
        """The connection is open and greeted, where the dialect greets."""
        if self._images is not None:
            self._images.on_connected(self.dialect, self.metadata)

    def not_greeted(self, timeout_s: float) -> DeadlineExceeded:
        """The error for a server that accepted the connection and said nothing, where the dialect has a greeting."""
        known = [one.name for one in _known() if not one.greets and one.name not in (OF_ZMQ, OF_GRPC)]
        silent = " or ".join(f"dialect={name!r}" for name in known)
        what = f"connected to {self._url}, but no greeting came within {timeout_s:g} s"
        cures = f"its policy may still be loading (GET /readyz tells), or its clients speak first ({silent})"
        return DeadlineExceeded(f"{what}: {cures}")

    def no_greeting(self, error: WireError) -> WireError:
        """The error for a first message that is no greeting."""
        what = f"{error.expected} as {self.dialect.name}'s greeting from {self._url}"
        return WireError(error.path, what, error.got, "another program may have this port")

    @property
    def doubt(self) -> str:
        """What to add to the error if the next request gets no answer."""
        if self._is_answered or self.is_greeted:
            return ""
        return "; the server has said nothing since it connected: its policy may still be loading (GET /readyz tells)"

    @property
    def waits_for_greeting(self) -> bool:
        """Whether a request is to be written once the connection is open: the greeting decides how pictures go."""
        return self._images is not None

    def request(self, observation: Observation) -> list[Part]:
        """The message that asks for actions; raises WireError if the dialect cannot carry the observation."""
        return self._write(observation if self._images is None else self._images.prepared(observation))

    def reply(self, message: Message) -> Reply:
        """Read an answer.

        Raises RemoteError if the server refused, WireError if the message is no answer, WrongDialect if the server
        speaks another dialect, BadAction if NaN or Inf is among the actions.
        """
        try:
            reply = self._replies.read(message)
        except RemoteError as error:
            self.may_close = self._is_answered = True
            code = error.code if error.code != RemoteError.code else None  # the dialect has read it
            if code is None and _OURS in self.metadata:
                code = code_in_text(str(error))
            raise RemoteError(str(error), error.close_code, code) from error.__cause__
        except WireError as error:
            if not self._is_answered and not self.is_greeted and _is_greeting(message, self.dialect):
                raise self._spoke_first() from error
            raise
        self._is_answered = True
        if type(reply.actions) is not np.ndarray:
            reply = Reply(_as_array(reply.actions), reply.timing, reply.fields)
        if self._images is not None:
            self._images.answered(reply)
        if self._checks_actions:
            _check_finite(reply.actions)
        return reply

    def _spoke_first(self) -> WrongDialect:
        greeters = [one.name for one in _known() if one.greets]
        hint = f"servers of {' and '.join(greeters)} greet their clients: try dialect={greeters[0]!r}"
        return WrongDialect("", f"{self.dialect.name}'s answer from {self._url}", "what reads as a greeting", hint)


def _as_array(actions: Any) -> Array:
    """Actions that a server sent as a list or a number."""
    try:
        array: Array = np.asarray(actions)
    except ValueError:  # a list of several lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        hint = "the server may speak another dialect" if isinstance(actions, Mapping) else ""
        raise WireError("actions", "an array of numbers", f"a {type(actions).__name__}", hint)
    return array


def _check_finite(actions: Array) -> None:
    if actions.dtype.kind == "f" and not np.isfinite(actions).all():
        place = [int(index) for index in np.argwhere(~np.isfinite(actions))[0]]
        what = f"actions: expected finite numbers, got {actions[tuple(place)]} at {place}"
        raise BadAction(f"{what}; check_actions=False lets them pass")


def _is_greeting(message: Message, spoken: Dialect) -> bool:
    """Whether a dialect that greets can read it, and the spoken one reads no fields in it: an echo is no greeting."""
    greeters = [dialect for dialect in _known() if dialect.greets]
    return not _reads(getattr(spoken, "reply_fields", spoken.read_reply), message) and any(
        _reads(one.read_greeting, message) for one in greeters
    )


def _reads(read: Callable[[Message], object], message: Message) -> bool:
    try:
        read(message)
    except PolicyserveError:
        return False
    return True


def _known() -> list[Dialect]:
    return [dialects.by_name(name) for name in dialects.client_names()]


def ended(code: int | None, reason: str) -> RemoteError:
    """The error for a connection that ended; code: of the server's close frame, None if it sent none."""
    if code is None or code in _GONE_CODES:
        told = reason if code is None else f"{code} {reason}".strip()
        return ConnectionLost(f"the connection ended without an answer ({told})", code)
    text, told_code = read_close_reason(code, reason)
    return RemoteError(f"{text or 'no reason given'} (close code {code})", code, told_code)
