"""Fifty clients that talk, pipeline, err and vanish: every answer belongs to its request and nothing stays behind.

benchmarks/soak.py is the same for a minute, with a ledger to read.
"""

from __future__ import annotations

import asyncio
import logging
import tracemalloc

import pytest

from benchmarks.soak import soak


def test_fifty_clients_with_random_ends_lose_nothing_and_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "policyserve")  # pytest would keep the lines, and they would count as memory
    turns = iter(range(1_500))
    tracemalloc.start()
    try:
        ledger, before, after = asyncio.run(soak(50, seed=0, goes_on=lambda: next(turns, None) is not None))
    finally:
        tracemalloc.stop()
    assert ledger["answered"] > 500
    assert ledger["refused"] > 5
    assert ledger["vanished"] > 5
    assert ledger.lost == 0
    assert ledger["mixed up"] == 0
    assert after["tasks"] == before["tasks"]
    assert after["sessions"] == 0
    assert after["kB"] - before["kB"] < 1_000
