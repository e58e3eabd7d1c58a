"""The program of the ablations finds each piece that it switches off, and measures one."""

from __future__ import annotations

import sys

import pytest

from tests.cli.serving import ROOT, run

PIECES = (
    "learned layouts",
    "reply templates",
    "shared turns",
    "preparing ahead",
    "freed memory kept",
    "few frames a turn",
    "own framing",
    "uvloop",
    "asyncio",
)


@pytest.mark.parametrize("piece", PIECES)
def test_a_piece_that_is_switched_off_is_there(piece: str) -> None:
    if piece == "asyncio":
        pytest.importorskip("uvloop")
    code = f"from measuring.ablated import PIECES; PIECES[{piece!r}]()"
    done = run(sys.executable, "-c", code, cwd=ROOT / "benchmarks")
    assert done.returncode == 0, done.stderr


def test_a_server_without_a_piece_is_compared_with_one_that_has_it() -> None:
    done = run(sys.executable, "benchmarks/ablations.py", "--quick", "--only", "reply templates")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| reply templates | P1, inline")]
    assert len(rows) == 2
    assert all(row.count(" … ") == 2 for row in rows)
