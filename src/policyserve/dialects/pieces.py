"""The base class of this package's dialects, which write requests in pieces and read replies in two steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from policyserve.core.arrays import Placed
from policyserve.core.errors import WireError
from policyserve.core.messages import Message, Observation, Part, Reply
from policyserve.dialects.marked_arrays import Spelling
from policyserve.dialects.packing import joined
from policyserve.dialects.sendable import why_not


class InPieces(ABC):
    """The members of a Dialect that follow from those of a ZeroCopyDialect."""

    @abstractmethod
    def request_parts(self, observation: Observation) -> list[Part]: ...

    @abstractmethod
    def reply_fields(self, message: Message, placed: list[Placed] | None = None) -> dict[str, Any]: ...

    @abstractmethod
    def reply_of(self, fields: dict[str, Any]) -> Reply: ...

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation as one message; raises WireError for what the wire cannot carry."""
        return joined(self.request_parts(observation))

    def read_reply(self, message: Message) -> Reply:
        """Read an answer; raises RemoteError for the server's error, WireError if the server speaks another dialect."""
        return self.reply_of(self.reply_fields(message))


def parts_of(observation: Observation, spelling: Spelling) -> list[Part]:
    """An observation as a map with marked arrays; raises WireError for the first value that cannot be sent."""
    try:
        return spelling.parts(observation if isinstance(observation, dict) else {**observation})
    except Exception as error:  # a stranger's objects, whose conversion may raise anything
        refusal = why_not(observation, spelling.write)
        raise refusal or WireError("", "arrays, texts and numbers", str(error)) from error
