"""The greeting and the frames between an edge and a replica, as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import WireError
from policyserve.ray import wire

SECRET, OTHER = b"s" * 32, b"t" * 32
CHALLENGE, OWN = wire.MAGIC + b"c" * wire.RANDOM_BYTES, b"o" * wire.RANDOM_BYTES
SIZES = st.sampled_from([0, 1, 100, 65_511, 65_512, 70_000, 200_000])


def pattern(size: int, first: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(size,) uint8 that tells where in it a piece is from."""
    return ((np.arange(size) + first) % 251).astype(np.uint8)


def read(reader: wire.FrameReader, data: bytes, cuts: Sequence[int] = ()) -> list[wire.Frame]:
    frames, at = [], 0
    for end in [*sorted(cuts), len(data)]:
        while at < end:
            room = reader.get_buffer()
            count = min(len(room), end - at)
            room[:count] = data[at : at + count]
            at += count
            frames += reader.advance(count)
    return frames


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(SIZES, SIZES), max_size=4), st.lists(st.floats(0, 1, exclude_max=True), max_size=6))
def test_frames_are_read_as_they_were_written_wherever_they_are_cut(
    sizes: list[tuple[int, int]], cuts: list[float]
) -> None:
    sent = [
        (wire.GROUP, number, pattern(message, number).tobytes(), pattern(arrays, number + 100))
        for number, (message, arrays) in enumerate(sizes)
    ]
    frames = [wire.write_frame(kind, number, message, [arrays.data]) for kind, number, message, arrays in sent]
    data = b"".join(bytes(piece) for frame in frames for piece in frame)
    came = read(wire.FrameReader(), data, [int(cut * len(data)) for cut in cuts])
    assert [(one.kind, one.number, one.message, one.arrays.tobytes()) for one in came] == [
        (kind, number, message, arrays.tobytes()) for kind, number, message, arrays in sent
    ]
    assert all(one.arrays.flags.writeable for one in came)


def test_what_was_read_is_kept_while_more_comes() -> None:
    reader = wire.FrameReader()
    first, second = (
        read(reader, b"".join(wire.write_frame(wire.GROUP, 1, b"", [pattern(10, value).data]))) for value in (1, 2)
    )
    assert first[0].arrays.tolist() == list(range(1, 11))
    assert second[0].arrays.tolist() == list(range(2, 12))


def test_a_large_array_is_sent_from_where_it_is() -> None:
    array = np.zeros(1 << 20, np.uint8)
    pieces = wire.write_frame(wire.GROUP, 1, b"message", [array.data])
    assert any(np.shares_memory(np.frombuffer(piece, np.uint8), array) for piece in pieces)


@pytest.mark.parametrize("sizes", [(2**63, 0), (0, 2**63), (wire.MOST_BYTES, 1)])
def test_a_giant_length_is_refused_before_there_is_memory_for_it(sizes: tuple[int, int]) -> None:
    with pytest.raises(WireError, match="expected at most 4294967296 bytes"):
        read(wire.FrameReader(), struct.pack(">BQQQ", wire.GROUP, 1, *sizes))


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_wire_error(data: bytes) -> None:
    try:
        frames = read(wire.FrameReader(1000), data)
    except WireError:
        return
    assert all(len(one.message) + one.arrays.nbytes <= 1000 for one in frames)


def test_who_knows_the_secret_proves_it_and_hears_the_digest() -> None:
    claimed = wire.claim(SECRET, CHALLENGE, OWN)
    assert len(claimed) == wire.CLAIM_BYTES
    assert wire.is_claim(claimed, SECRET, CHALLENGE)
    told = wire.welcome(SECRET, CHALLENGE, claimed, "0123456789abcdef")
    assert len(told) == wire.WELCOME_BYTES
    assert wire.read_welcome(told, SECRET, CHALLENGE, OWN) == "0123456789abcdef"
    assert SECRET not in claimed + told


def test_another_secret_and_a_recorded_greeting_prove_nothing() -> None:
    assert not wire.is_claim(wire.claim(OTHER, CHALLENGE, OWN), SECRET, CHALLENGE)
    assert not wire.is_claim(wire.claim(SECRET, CHALLENGE, OWN), SECRET, CHALLENGE[:-1] + b"d")
    assert not wire.is_claim(bytes(wire.CLAIM_BYTES), SECRET, CHALLENGE)


def test_an_edge_notices_who_is_no_replica_of_its_own() -> None:
    claimed = wire.claim(SECRET, CHALLENGE, OWN)
    for told in (
        wire.welcome(OTHER, CHALLENGE, claimed, "digest"),
        wire.welcome(SECRET, CHALLENGE, claimed, "digest")[:-1] + b"x",
        claimed[-wire.PROOF_BYTES :] + bytes(wire.DIGEST_BYTES),  # its own proof, sent back
    ):
        with pytest.raises(WireError, match="somebody who does not know its secret"):
            wire.read_welcome(told, SECRET, CHALLENGE, OWN)
    with pytest.raises(WireError, match="expected that of a replica"):
        wire.claim(SECRET, b"HTTP/1.1 400 Bad Request", OWN)
