"""docs/cluster.md: its commands are taken, its programs and tests are there, and its metrics are what an edge tells.

What the commands do on a cluster is in tests/ray/test_drills.py.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from policyserve.cli import main
from policyserve.cli.cluster import RollFlags
from policyserve.policies.objects import NoFlags
from policyserve.ray.config import ClusterConfig, ReplicaSettings
from policyserve.ray.edge import RayEngine
from policyserve.ray.engine import Wanted
from tests.cli.serving import POLICYSERVE, ROOT, run

PAGE = (ROOT / "docs" / "cluster.md").read_text()
COMMANDS = [line.partition("  #")[0] for line in PAGE.splitlines() if line.startswith("policyserve ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_taken_and_wants_ray_or_a_cluster(command: str) -> None:
    words = [*POLICYSERVE, *shlex.split(command)[1:], *(["--port", "0"] if "--engine" in command else [])]
    words += [] if "--ray-address" in words else ["--ray-address", "127.0.0.1:1"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=100)
    assert done.returncode == 1, done.stderr
    assert re.search(r"ray\[serve\] is not installed; run: pip install 'policyserve\[ray\]'|no cluster at", done.stderr)


def test_its_file_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (content,) = re.findall(r"<!-- edge.toml -->\n```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "edge.toml").write_text(content)
    monkeypatch.setattr("policyserve.ray.cluster.check_installed", lambda: None)
    main(["serve", "--config", str(tmp_path / "edge.toml"), "--print-config"])
    assert 'deployed-as = "place-2026"' in capsys.readouterr().out


def test_the_names_of_metrics_are_those_of_an_edge() -> None:
    engine = RayEngine(Wanted(ClusterConfig(), ReplicaSettings()), 1, 1.0, 1.0)
    told = {f"policyserve_{one.name}{'_total' if one.grows else ''}" for one in engine.figures()}
    assert set(re.findall(r"`(policyserve_cluster\w+)`", PAGE)) == told


def test_flags_that_it_names_are_there() -> None:
    fields = {f"--{name.replace('_', '-')}" for name in vars(ClusterConfig())}
    of_rolling = {f"--{name.replace('_', '-')}" for name in vars(RollFlags(NoFlags()))}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--replicas", "--reload", "--follow"}
    assert named - fields - of_rolling == set()


def test_programs_and_tests_that_it_names_exist() -> None:
    for path in re.findall(r"(?:benchmarks|tests)/[\w/]+\.py", PAGE):
        assert (ROOT / path).exists(), path
    assert re.search(r"^ray-drills:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_its_simulated_rows_are_those_of_the_program() -> None:
    for count in ("1", "16"):
        done = run(sys.executable, "benchmarks/cluster_sim.py", "--replicas", count, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert done.stdout in PAGE or done.stdout.splitlines()[-1] in PAGE


def test_the_real_runs_that_it_names_are_those_that_the_program_is_held_against() -> None:
    code = "import cluster_sim; print(*cluster_sim.checked(), *cluster_sim.lanes(0), *cluster_sim.faults(0), sep='\\n')"
    done = run(sys.executable, "-c", code, cwd=ROOT / "benchmarks")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "\n".join(lines[:13]) in PAGE
    assert max(map(len, lines)) <= 80
    rows = [line for line in PAGE.splitlines() if "ms, batches of" in line]
    assert len(rows) > 4
    assert set(rows) <= set(lines)  # as its text says
    assert "a replica freezes      12655     12655     0  175   2.1s" in lines
    assert "an edge is killed      12795     12790     5" in done.stdout
