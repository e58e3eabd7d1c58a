"""What docs/reliability.md points to exists, and its commands take the flags that it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.cli.serving import ROOT
from tests.fuzz.targets import TARGETS

PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED_TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_every_promise_names_what_shows_it() -> None:
    rows = PAGE.partition("| promise |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) > 15
    for row in rows:
        shown_by = row.rstrip(" |").rpartition("|")[2]
        assert re.search(r"`(tests|benchmarks)/[\w/]+\.py", shown_by), row


@pytest.mark.parametrize(("path", "name"), NAMED_TESTS)
def test_every_test_that_is_named_exists(path: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_file_that_is_named_exists() -> None:
    for path in re.findall(r"`((?:tests|benchmarks)/[\w/]+(?:\.py)?)`", PAGE):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", [line for line in COMMANDS if "benchmarks/" in line])
def test_the_flags_of_its_commands_are_the_programs(command: str) -> None:
    _, program, *flags = shlex.split(command)
    shown = subprocess.run([sys.executable, ROOT / program, "--help"], capture_output=True, text=True, check=True)
    for flag in flags:
        if flag.startswith("--"):
            assert flag in shown.stdout


def test_it_lists_every_fuzzer() -> None:
    table = PAGE.partition("| fuzzer |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE) == [*TARGETS]
