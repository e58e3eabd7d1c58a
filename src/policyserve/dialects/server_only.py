"""The members of a Dialect that one without a client's half has: this package answers its clients, and is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from policyserve.core.errors import WireError
from policyserve.core.messages import Message, Observation, Reply


class ServerOnly:
    """The base class of dialects whose requests other people's programs write. Clients refuse its name (has_client)."""

    has_client = False
    name: str

    def write_request(self, observation: Observation) -> bytes:
        """Raise WireError."""
        self._refuse()

    def read_greeting(self, message: Message) -> Mapping[str, Any]:
        """Raise WireError."""
        self._refuse()

    def read_reply(self, message: Message) -> Reply:
        """Raise WireError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise WireError("", "a dialect that this package's clients speak", self.name)
