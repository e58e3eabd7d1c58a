"""The base class of this package's dialects, which write requests in pieces and read replies in two steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from policyserve.core.arrays import Placed
from policyserve.core.messages import Message, Observation, Part, Reply
from policyserve.dialects.packing import joined


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
