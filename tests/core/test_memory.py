"""The C library keeps what messages have freed, until it is told to give it back. Each test is a process of its own."""

from __future__ import annotations

import ctypes
import sys

import pytest

from tests.cli.serving import run

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc alone can do that"
)
PROGRAM = """
import resource, threading
from pathlib import Path
from policyserve.core.memory import give_back, keep_freed
from policyserve.websocket.buffers import allocate

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def rush(count=16, size=3_000_000):
    held = [allocate(size) for _ in range(count)]
    for buffer in held:
        buffer[::4096] = b"x" * len(buffer[::4096])

def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    while len(list(Path("/proc/self/task").iterdir())) > 1:  # the C library's, whose arena the next one takes
        pass

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
"""
PAGES = 16 * 3_000_000 // 4096  # of one rush


def told(code: str) -> int:
    done = run(sys.executable, "-c", PROGRAM + code)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("where", ["rush()", "in_thread(rush)"])
def test_what_was_freed_is_used_again_without_page_faults(where: str) -> None:
    assert told(f"keep_freed(); {where}; before = faults(); {where}; print(faults() - before)") < PAGES / 10


def test_without_it_the_same_costs_a_fault_for_each_page() -> None:
    assert told("rush(); before = faults(); rush(); print(faults() - before)") > PAGES / 2


def test_what_is_free_can_be_given_back() -> None:
    left = told("keep_freed(); before = resident(); rush(); give_back(); print(resident() - before)")
    assert left < 16 * 3_000_000 / 10
