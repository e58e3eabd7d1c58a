"""What a transport's connection has to be, so that the reception knows who is connected and gives it a session."""

from __future__ import annotations

from typing import Protocol

from policyserve.server.conversation import Sink
from policyserve.server.guards import Holder


class Peer(Protocol):
    """A connection, as the reception sees it. number: below 0; of one that gets a session the session's, from 1 on."""

    number: int
    address: str  # IP, empty on a Unix socket
    peer: str  # the same with the port, for the log

    def abort(self) -> None:
        """Cut it off."""
        ...


class SessionPeer(Peer, Sink, Holder, Protocol):
    """A connection that has a session, or asks for one."""

    receiving_s: float  # from the first bytes of its newest message to the last, 0 of one that came at once

    def expect_first_message(self, patience_s: float | None) -> None:
        """Call conversation.note_silence() if the client has said nothing by then; None: it need not speak first."""
        ...
