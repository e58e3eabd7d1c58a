"""The table of docs/reliability.md is made by the command beside it, and that loses nothing."""

from __future__ import annotations

import re
import shlex
import sys

from tests.cli.serving import ROOT, run

PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_the_command_makes_such_a_table_and_every_request_is_answered_or_refused() -> None:
    found = re.search(r"^python (benchmarks/overload\.py .*)$", PAGE, re.MULTILINE)
    assert found
    program, *flags = shlex.split(found.group(1))
    done = run(sys.executable, str(ROOT / program), *flags, "--seconds", "0.3", "--max-queue-ms", "20")
    head, _, *rows = done.stdout.splitlines()
    assert head in PAGE
    assert len(rows) == 7, done.stderr
    offered, answered, refused, lost = ([float(row.split("|")[column]) for row in rows] for column in (2, 3, 4, 9))
    assert all(sent > 0 and done > 0 for sent, done in zip(offered, answered, strict=True))
    assert refused[-1] > 0
    assert not any(lost)
