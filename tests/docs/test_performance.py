"""The commands of docs/performance.md run as they stand there."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

from tests.cli.serving import POLICYSERVE, ROOT, run

PAGE = (ROOT / "docs" / "performance.md").read_text()
BENCH = re.findall(r"^(policyserve bench [^#\n]+)", PAGE, re.MULTILINE)
PROGRAMS = sorted(set(re.findall(r"python (benchmarks/\w+\.py)", PAGE)))


@pytest.mark.parametrize("command", BENCH)
def test_a_bench_shows_round_trips_and_no_errors(command: str) -> None:
    done = run(*POLICYSERVE, *shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr
    assert "round trip" in done.stdout
    assert re.search(r"errors +none", done.stdout)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_benchmark_that_is_named_is_there_and_tells_its_flags(program: str) -> None:
    done = run(sys.executable, str(ROOT / program), "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout


def test_the_page_names_programs_and_commands() -> None:
    assert len(BENCH) == 2
    assert "benchmarks/marks.py" in PROGRAMS
