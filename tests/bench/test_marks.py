"""The program of the marks runs, and says what it knows."""

from __future__ import annotations

import sys

from tests.cli.serving import run

MARKS = (sys.executable, "benchmarks/marks.py", "--quick")


def test_a_group_of_marks_is_measured_and_shown_with_the_machine() -> None:
    done = run(*MARKS, "--only", "slow")
    assert done.returncode == 0, done.stderr
    assert "Python" in done.stdout.splitlines()[0]
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("20 ms policy that batches, 32 clients")]
    assert "≥ 1300 /s" in row
    assert "answers per second" in row
    assert row.split()[-1] in ("met", "MISSED")


def test_a_group_that_does_not_exist_is_refused_with_those_that_do() -> None:
    done = run(*MARKS, "--only", "nowhere")
    assert done.returncode == 2
    assert "--only: expected server, clients, faults" in done.stderr
