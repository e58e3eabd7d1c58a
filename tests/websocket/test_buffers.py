"""Memory for messages: as large as asked for, writable, and not taken before it is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from policyserve.websocket.buffers import allocate

MIB = 1 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_buffer_has_its_size_and_is_nobody_elses() -> None:
    for size in (0, 1, 70_000, 5 * MIB):
        first, second = allocate(size), allocate(size)
        assert len(first) == len(second) == size
        first[:], second[:] = bytes(size), b"\1" * size
        assert first == bytes(size)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_message_that_has_only_begun_takes_only_what_has_come() -> None:
    """As a peer does that announces much and sends little: a huge page for each would be 2 MiB."""
    before = resident_bytes()
    held = [allocate(64 * MIB) for _ in range(32)]
    for buffer in held:
        buffer[:100_000] = b"\1" * 100_000
    assert resident_bytes() - before < 16 * MIB


def test_more_than_there_is_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        allocate(1 << 60)
