"""What `make ray` and `make ray-drills` run; the runs themselves need an environment with Ray."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.serving import ROOT


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("check_ray")


def collected(command: list[str]) -> list[str]:
    """The tests that a command would run."""
    done = subprocess.run([*command, "--collect-only"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]


def test_the_selection_is_a_part_of_the_drills(program: Any) -> None:
    some = collected(program.command(Path(sys.executable), False))
    every = collected(program.command(Path(sys.executable), True))
    chosen = {"test_calm[ours]", "test_a_replica_is_killed[ours]", "test_a_version_is_rolled[ours]"}
    assert chosen < set(some) < set(every)
    assert {"test_calm[originals]", "test_a_node_is_lost[ours]"} < set(every) - set(some)


def test_no_other_cluster_is_found(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not [name for name in program.surroundings() if name.startswith("RAY_")]
