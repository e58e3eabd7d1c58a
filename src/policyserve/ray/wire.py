"""Groups on a TCP connection between an edge and a replica: the greeting, and the frames behind it. Pure.

The greeting: the replica sends MAGIC and 32 random bytes; the edge 32 of its own and a proof; the replica its proof and
the digest of its spec. A proof is an HMAC of both sides' random bytes under the replica's secret. So the secret crosses
in neither direction, a greeting that somebody recorded is worth nothing, and an edge notices who else has the port.

A frame: its kind, the call's number, the sizes of both parts (25 bytes), the arrays, the message.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import WireError

MAGIC = b"psgroup1"
RANDOM_BYTES = 32
PROOF_BYTES = 32
DIGEST_BYTES = 16
CHALLENGE_BYTES = len(MAGIC) + RANDOM_BYTES  # what a replica sends first
CLAIM_BYTES = RANDOM_BYTES + PROOF_BYTES  # what an edge answers
WELCOME_BYTES = PROOF_BYTES + DIGEST_BYTES  # what a replica answers

GROUP, ANSWERS, FAILED, GOODBYE = range(1, 5)  # kinds; a goodbye asks for no more groups
MOST_BYTES = 4 << 30  # of one frame: more than 256 requests with pictures

_HEADER = struct.Struct(">BQQQ")
_SCRATCH_BYTES = 1 << 16
_JOINED = 1 << 16  # bytes, up to which a frame is one write: copying it costs less than a second call


class Frame(NamedTuple):
    """A frame as it came. arrays: (N,) uint8, writable, and whoever takes the frame may keep it."""

    kind: int
    number: int
    message: bytes
    arrays: Array


def claim(secret: bytes, challenge: bytes, own: bytes) -> bytes:
    """An edge's answer to a challenge. own: RANDOM_BYTES of it. Raises WireError if no replica has sent that."""
    if not challenge.startswith(MAGIC):
        raise WireError("greeting", f"that of a replica, {MAGIC!r}", repr(challenge[: len(MAGIC)]))
    return own + _proof(secret, b"edge", challenge, own)


def is_claim(data: bytes, secret: bytes, challenge: bytes) -> bool:
    """Whether an edge that knows the secret has sent this; takes as long for any that does not."""
    own, proof = data[:RANDOM_BYTES], data[RANDOM_BYTES:]
    return hmac.compare_digest(proof, _proof(secret, b"edge", challenge, own))


def welcome(secret: bytes, challenge: bytes, claimed: bytes, digest: str) -> bytes:
    """A replica's answer to a claim that is one. digest: of its spec."""
    told = digest.encode().ljust(DIGEST_BYTES)
    return _proof(secret, b"replica", challenge, claimed[:RANDOM_BYTES] + told) + told


def read_welcome(data: bytes, secret: bytes, challenge: bytes, own: bytes) -> str:
    """The digest in a replica's answer; raises WireError if it does not know the secret."""
    proof, told = data[:PROOF_BYTES], data[PROOF_BYTES:]
    if not hmac.compare_digest(proof, _proof(secret, b"replica", challenge, own + told)):
        raise WireError("greeting", "a replica's proof", "one by somebody who does not know its secret")
    return told.decode().rstrip()


def write_frame(
    kind: int, number: int, message: bytes = b"", arrays: Sequence[memoryview] = ()
) -> Sequence[bytes | memoryview]:
    """What to send, one piece after the other. arrays: bytes, which are not copied if they are many."""
    size = sum(map(len, arrays))
    header = _HEADER.pack(kind, number, size, len(message))
    return (b"".join((header, *arrays, message)),) if size <= _JOINED else (header, *arrays, message)


class FrameReader:
    """Reads frames out of what was written into get_buffer(); a large one's bytes go straight to their place."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._scratch = np.empty(_SCRATCH_BYTES, np.uint8)
        self._held = 0  # bytes at its beginning, of a header that is not whole yet
        self._filling: _Filling | None = None

    def get_buffer(self) -> memoryview:
        """Where the next bytes go."""
        if self._filling is not None:
            return self._filling.body.data[self._filling.filled :]
        return self._scratch.data[self._held :]

    def advance(self, count: int) -> list[Frame]:
        """`count` bytes were written there: the frames that are whole now. Raises WireError for what is none."""
        if self._filling is None:
            return self._read(self._held + count)
        self._filling.filled += count
        return self._filled(self._filling)

    def _read(self, end: int) -> list[Frame]:
        frames: list[Frame] = []
        at = 0
        while end - at >= _HEADER.size and self._filling is None:
            filling = self._begin(at)
            at += _HEADER.size
            there = min(filling.body.nbytes, end - at)
            filling.body[:there] = self._scratch[at : at + there]
            filling.filled = there
            at += there
            frames += self._filled(filling)
        self._held = end - at
        if self._held:
            self._scratch[: self._held] = self._scratch[at:end].copy()
        return frames

    def _begin(self, at: int) -> _Filling:
        kind, number, size, message_size = _HEADER.unpack_from(self._scratch.data, at)
        if not GROUP <= kind <= GOODBYE:
            raise WireError("frame", f"a kind, {GROUP} to {GOODBYE}", str(kind))
        if size + message_size > self._most_bytes:
            raise WireError("frame", f"at most {self._most_bytes} bytes", str(size + message_size))
        try:
            return _Filling(kind, number, size, np.empty(size + message_size, np.uint8))
        except MemoryError:
            raise WireError("frame", "what fits into memory", f"{size + message_size} bytes") from None

    def _filled(self, filling: _Filling) -> list[Frame]:
        is_whole = filling.filled == filling.body.nbytes
        self._filling = None if is_whole else filling
        return [filling.frame()] if is_whole else []


class _Filling:
    """A frame that is being read. size: of its arrays, which come first in `body`."""

    __slots__ = ("body", "filled", "kind", "number", "size")

    def __init__(self, kind: int, number: int, size: int, body: Array) -> None:
        self.kind = kind
        self.number = number
        self.size = size
        self.body = body
        self.filled = 0

    def frame(self) -> Frame:
        return Frame(self.kind, self.number, self.body[self.size :].tobytes(), self.body[: self.size])


def _proof(secret: bytes, who: bytes, challenge: bytes, told: bytes) -> bytes:
    return hmac.digest(secret, who + challenge + told, "sha256")
