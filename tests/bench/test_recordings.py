"""The program that measures recordings finds its servers, and prints a row for each."""

from __future__ import annotations

import sys

import pytest

from tests.cli.serving import run
from tests.policies.frameworks import import_or_skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux' count of processor time")
def test_servers_that_record_are_compared_with_one_that_does_not() -> None:
    import_or_skip("mcap.writer")
    done = run(sys.executable, "benchmarks/recordings.py", "--quick", "--kinds", "inline")
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| inline")]
    controls = ["nothing", "nothing, again", "a copy", "a bare write"]
    assert [row[1] for row in rows] == [*controls, "messages", "messages and views"]
    for row in rows:
        has_writer = row[1].startswith("messages") or row[1] == "a bare write"
        assert (float(row[5]) > 0) == has_writer, "only who writes has a writer"
