"""The line that a terminal shows while `bench` measures."""

from __future__ import annotations

import io

import pytest

from policyserve.bench.progress import progress_line, progress_text
from policyserve.bench.tally import Tally


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        (0.0, "8 clients: [....................] 0.0 of 10 s, 1 answer"),
        (2.5, "8 clients: [#####...............] 2.5 of 10 s, 1 answer"),
        (99.0, "8 clients: [####################] 10.0 of 10 s, 1 answer"),
    ],
)
def test_the_bar_fills_with_the_time(passed: float, shown: str) -> None:
    assert progress_text("8 clients", passed, 10.0, 1, 0, columns=80) == shown


def test_what_nobody_knows_the_end_of_has_no_bar() -> None:
    assert (
        progress_text("8 clients, connecting", 1.25, 0.0, 0, 0, columns=80) == "8 clients, connecting: 1.2 s, 0 answers"
    )


@pytest.mark.parametrize("columns", [80, 78])
def test_a_long_name_is_cut_and_the_figures_are_not(columns: int) -> None:
    told = progress_text("slice 3 of 20, ws://" + 90 * "x", 2.5, 10.0, 12_345_678, 12, columns=columns)
    assert len(told) <= columns - 1
    assert told.startswith("slice")
    assert told.endswith(" 2.5 of 10 s, 12345678 answers, 12 errors")
    assert "…: [#####" in told


def test_a_pipe_gets_the_lines_that_stay_and_nothing_else() -> None:
    pipe = io.StringIO()
    with progress_line(pipe) as progress:
        progress.show("8 clients", Tally(), 1.0)
        progress.say("    8 clients   p99 2.00 ms")
    assert pipe.getvalue() == "    8 clients   p99 2.00 ms\n"
