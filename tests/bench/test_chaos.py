"""What the chaos soak notices, and what its misdeeds send; tests/server/test_soak.py runs it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from benchmarks.chaos import bad_server, logs
from benchmarks.chaos.asks import FORGED, Ask, draw
from benchmarks.chaos.ledger import Watch
from benchmarks.chaos.misdeeds import is_told_why, with_keys
from benchmarks.chaos.rig import Held
from policyserve.dialects import by_name

FINE = (
    "2026-11-28 10:00:00,000 WARNING policyserve.server.reception: session 1: policy_failed: no task\\x1b[2J, café.txt"
)
HELD = Held(
    rss_kb=100_000, peak_kb=150_000, children_kb=0, fds=10, threads=4, tasks=3, sessions=0, strangers=0, pending=0,
    stage="", replaced=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"{FORGED}: session 1 opened", "forged"),
        ("no task \x1b[2J", "control"),
        ("no task \x9b31m", "control"),
        ("no task \u202e", "control"),
        ("x" * 10_000, "more than"),
    ],
)
def test_a_line_of_the_log_that_is_not_the_servers_is_noticed(line: str, told: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"{FINE}\n{line}\n{line}\n")
    (fault,) = logs.faults(log)
    assert told in fault


def test_a_log_that_is_fine_has_no_faults(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"{FINE}\nTraceback (most recent call last):\n  {FORGED}, indented as a traceback's lines are\n")
    assert logs.faults(log) == []


def test_memory_that_rose_beyond_its_bound_is_a_complaint_and_so_is_what_is_kept() -> None:
    watch = Watch(spare_fds=0, most_kb=60_000)
    watch.start = watch.end = HELD
    assert watch.complaints() == []
    watch.end = replace(HELD, peak_kb=161_000, sessions=1)
    peak, sessions = sorted(watch.complaints())
    assert "61000 kB" in peak
    assert sessions.startswith("sessions")


@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl"])
@pytest.mark.parametrize("count", [1, 100])
def test_keys_come_beside_an_observation_that_is_good(dialect: str, count: int) -> None:
    good = by_name(dialect).write_request(Ask(1, 2, 3).observation())
    assert isinstance(good, bytes)
    more = {f"key {number}": number for number in range(count)}
    assert msgpack.unpackb(with_keys(good, more)) == {**msgpack.unpackb(good), **more}


def test_a_close_without_a_reason_tells_nobody_why() -> None:
    assert is_told_why((8, b"\x03\xf0too many"), 1008)
    assert not is_told_why((8, b"\x03\xf0"), 1008)
    assert not is_told_why((8, b"\x03\xe8bye"), 1008)
    assert not is_told_why((1, b"\x03\xf0too many"), 1008)


def test_each_misdeed_of_the_bad_server_has_a_path_that_names_it() -> None:
    assert [bad_server.path_of(one).removeprefix("/").replace("-", " ") for one in bad_server.MISDEEDS] == [
        *bad_server.MISDEEDS
    ]


def test_a_client_asks_for_the_same_if_its_dice_fall_alike() -> None:
    asked = [[draw(random.Random("seed"), 1, 2, number) for number in range(200)] for _ in range(2)]
    assert asked[0] == asked[1]
