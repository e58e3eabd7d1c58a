"""One request's body while it comes in: bounded in bytes, and in pieces. No socket, no clock."""

from __future__ import annotations

from typing import Literal, TypeAlias

from policyserve.server import routes
from policyserve.server.handshake import Handshake

_MIB = 1024 * 1024
_A_TURN = 64  # pieces that are read in one turn of the event loop: each takes some 20 µs
_FREE, _LEAST = 1000, 256  # pieces of any size, and the bytes that all must have on the average from then on

# What has been read of it: all; all that has come; or what one turn reads, of more.
Read: TypeAlias = Literal["whole", "part", "more"]


class Body:
    """What has come. most: bytes that it may have. began_at: for whoever measures it."""

    def __init__(self, most: int, began_at: float) -> None:
        self.data = bytearray()
        self.began_at = began_at
        self._most = most
        self._pieces = 0

    def refusal_of_size(self, size: int | None) -> routes.Response | None:
        """What to answer before a byte of it is read, if its head says that it is too large."""
        return None if size is None or size <= self._most else self._too_large(f"{size} bytes")

    def read(self, handshake: Handshake, data: bytes) -> Read | routes.Response:
        """Read the pieces that have come with `data`, and before; gives the refusal if it is wrong."""
        for _ in range(_A_TURN):
            piece = handshake.body(data)
            data = b""
            if isinstance(piece, routes.Response):
                return piece
            if piece is None:
                return "part"
            if not piece:
                return "whole"
            self._pieces += 1
            if len(self.data) + len(piece) > self._most:
                return self._too_large("more")
            self.data += piece
            if self._pieces > _FREE and len(self.data) < self._pieces * _LEAST:
                return routes.text(400, f"expected chunks of {_LEAST} bytes or more on the average, got {self._pieces}")
        return "more"

    def _too_large(self, got: str) -> routes.Response:
        return routes.text(413, f"expected a body of at most {self._most / _MIB:g} MiB (--max-body-mib), got {got}")
