"""The client's half of a conversation, pure: what to send, what came back, whose fault an end was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.dialect import Dialect, code_in_text, read_close_reason, request_writer
from policyserve.core.errors import ConnectionLost, RemoteError
from policyserve.core.messages import Frame, Observation, Part, Reply
from policyserve.core.reading import ReplyReader
from policyserve.dialects import by_name

_GONE_CODES = {1000, 1001, 1005, 1006, 1012}  # an end that is no answer to a request


class ClientSession:
    """One connection's dialect and greeting."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.metadata: Mapping[str, Any] = {}
        self._replies = ReplyReader(dialect)
        self._write = request_writer(dialect)
        self.may_close = False  # the last answer was an error: some servers close behind it

    def greeted(self, frame: Frame) -> None:
        """Read the server's first frame, where the dialect has one."""
        self.metadata = self.dialect.read_greeting(frame)

    def request(self, observation: Observation) -> list[Part]:
        """The message that asks for actions; raises WireError if the dialect cannot carry the observation."""
        return self._write(observation)

    def reply(self, frame: Frame) -> Reply:
        """Read an answer; raises RemoteError if the server refused, WireError if it speaks another dialect."""
        try:
            return self._replies.read(frame)
        except RemoteError as error:
            self.may_close = True
            code = code_in_text(str(error)) if "policyserve" in self.metadata else None
            raise RemoteError(str(error), error.close_code, code) from error.__cause__


def ended(code: int | None, reason: str) -> RemoteError:
    """The error for a connection that ended; code: of the server's close frame, None if it sent none."""
    if code is None or code in _GONE_CODES:
        told = reason if code is None else f"{code} {reason}".strip()
        return ConnectionLost(f"the connection ended without an answer ({told})", code)
    text, told_code = read_close_reason(code, reason)
    return RemoteError(f"{text or 'no reason given'} (close code {code})", code, told_code)


def open_session(dialect: str) -> ClientSession:
    """A session in the named dialect; raises ConfigError that lists the known ones."""
    return ClientSession(by_name(dialect))
