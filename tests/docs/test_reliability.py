"""What docs/reliability.md points to exists, and its commands take the flags that it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.cli.serving import ROOT
from tests.docs.promises import exists, named_tests, shown_by
from tests.fuzz.targets import TARGETS

PAGE = (ROOT / "docs" / "reliability.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_every_promise_names_its_test() -> None:
    rows = shown_by(PAGE)
    assert len(rows) > 15
    assert [promise for promise, cell in rows.items() if not named_tests(cell)] == []


@pytest.mark.parametrize("test", named_tests(PAGE))
def test_every_test_that_is_named_exists(test: str) -> None:
    assert exists(test)


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
