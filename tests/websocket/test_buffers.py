"""Memory for messages: as large as asked for, writable, and not taken before it is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from policyserve.websocket.buffers import allocate
from tests.cli.serving import run

MIB = 1 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_buffer_has_its_size_and_is_nobody_elses() -> None:
    for size in (0, 1, 70_000, 5 * MIB):
        first, second = allocate(size), allocate(size)
        assert len(first) == len(second) == size
        first[:], second[:] = bytes(size), b"\1" * size
        assert bytes(memoryview(first)) == bytes(size)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_message_that_has_only_begun_takes_only_what_has_come() -> None:
    """As a peer does that announces much and sends little: a huge page for each would be 2 MiB."""
    before = resident_bytes()
    held = [allocate(64 * MIB) for _ in range(32)]
    for buffer in held:
        buffer[:100_000] = b"\1" * 100_000
    assert resident_bytes() - before < 16 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mib", [16, 64])
def test_a_large_message_that_has_only_begun_takes_no_memory_that_was_freed_before(mib: int) -> None:
    """The C library keeps what is freed, all of it in memory. A process of its own, since that is for all of it."""
    done = run(sys.executable, "-c", BEGUN, str(mib))
    assert done.returncode == 0, done.stderr


BEGUN = """
import sys
from pathlib import Path
from policyserve.core.memory import keep_freed
from policyserve.websocket.buffers import allocate

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

keep_freed()
size, before = int(sys.argv[1]) << 20, resident_bytes()
for _ in range(2):
    held = [allocate(size) for _ in range(8)]
    grown = resident_bytes() - before
    assert grown < 4 << 20, f"{grown >> 20} MiB for messages of which nothing has come"
    for buffer in held:
        memoryview(buffer)[::4096] = bytes(size // 4096)
    del buffer
    held.clear()
"""


def test_more_than_there_is_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        allocate(1 << 60)
