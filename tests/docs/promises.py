"""A page's tables of promises: what each row names as shown by, and whether that exists."""

from __future__ import annotations

import re

from tests.cli.serving import ROOT


def shown_by(page: str) -> dict[str, str]:
    """The rows of the page's tables of promises: each promise, and the cell that says what shows it."""
    rows: dict[str, str] = {}
    for table in re.split(r"^\| promise \|.*\n\|[-|]+\n", page, flags=re.MULTILINE)[1:]:
        for row in table.partition("\n\n")[0].splitlines():
            cells = row.strip("| ").split(" | ")
            rows[cells[0]] = cells[-1]
    return rows


def named_tests(text: str) -> list[str]:
    """The tests that a text names as `file::test`."""
    return sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", text)))


def exists(test: str) -> bool:
    """Whether the test `file::test` is there."""
    path, _, name = test.partition("::")
    file = ROOT / path
    return file.exists() and re.search(rf"^(async )?def {name}\(", file.read_text(), re.MULTILINE) is not None
