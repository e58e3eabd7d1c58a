"""docs/openpi.md: its commands have the flags that it shows, and every flag of the adapter stands in it."""

from __future__ import annotations

import re
import shlex

import pytest

from policyserve.policies.openpi.adapter import OpenpiFlags
from tests.cli.serving import ROOT
from tests.cli.terminals import knows

PAGE = (ROOT / "docs" / "openpi.md").read_text()
COMMANDS = re.findall(r"^policyserve (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_their_flags(command: str) -> None:
    assert knows(shlex.split(command))


def test_every_flag_is_told() -> None:
    for name in OpenpiFlags.__dataclass_fields__:
        assert f"`--{name.replace('_', '-')} " in PAGE
