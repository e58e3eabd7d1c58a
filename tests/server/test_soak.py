"""The chaos soak for some seconds, in a thread and in a process of the policy's own: nothing lost, nothing crossed.

benchmarks/soak.py is the same for minutes to hours, with the misdeeds that take their time, and a ledger to read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"
_LOOP = "uvloop" if find_spec("uvloop") else "asyncio"
_FLAGS = {
    "thread": ("--runner", "thread", "--loop", "asyncio", "--seed", "1"),
    "process": ("--runner", "process", "--loop", _LOOP, "--replicas", "2", "--uds", "--seed", "2"),
}

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the soak reads Linux's /proc")


@pytest.fixture(scope="module", name="runs")
def run_both() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Both at the same time: most of a soak is waiting."""
    command = [sys.executable, str(_SOAK), "--seconds", "5", "--clients", "20", "--json"]
    started = {
        name: subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name, flags in _FLAGS.items()
    }
    try:
        yield started
    finally:
        for run in started.values():
            run.kill()
            run.communicate()


@pytest.mark.parametrize("name", _FLAGS)
def test_nothing_is_lost_or_crossed_and_nothing_is_kept(name: str, runs: dict[str, subprocess.Popen[str]]) -> None:
    said, complained = runs[name].communicate(timeout=100)
    assert said, complained
    told: dict[str, Any] = json.loads(said)
    assert (told["complaints"], told["notes"]) == ([], [])
    assert runs[name].returncode == 0
    total = {
        end: sum(account.get(end, 0) for account in told["accounts"].values())
        for end in ("sent", "answered", "refused", "closed", "lost", "crossed")
    }
    assert total["sent"] == total["answered"] + total["refused"] + total["closed"]
    assert total["lost"] == total["crossed"] == 0
    assert total["answered"] > 200
    assert total["refused"] > 20
    assert total["closed"] > 20
    misdeeds = {name: counts["visits"] for name, counts in told["misdeeds"].items()}
    assert len(misdeeds) > 16
    assert misdeeds["a large text while the policy loads"] == 63
    assert sum(name.endswith((" at Client", " at AsyncClient")) for name in misdeeds) >= 6
    assert told["sabotage"]
    assert told["tls"] in (None, {"connections": 100, "hung": 0})
