"""docs/sb3.md: its commands serve, its program runs, its figures are those of the files."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from policyserve.policies.sb3.adapter import SB3Flags
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.policies.frameworks import import_or_skip
from tests.policies.sb3.cases import CARTPOLE

PAGE = (ROOT / "docs" / "sb3.md").read_text()
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("policyserve ")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the zip that the page names."""
    shutil.copy(CARTPOLE / "model.zip", tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_works(command: list[str], folder: Path) -> None:
    if command[1] in ("bench", "eval"):
        import_or_skip("gymnasium")
        done = run(*POLICYSERVE, *command[1:], cwd=folder)
        assert done.returncode == 0, done.stderr
        return
    with serving([*POLICYSERVE, *command[1:], "--host", "127.0.0.1", "--port", "0"], cwd=folder) as server:
        done = run(sys.executable, "-m", "policyserve.client", server.url)
        assert done.returncode == 0, done.stderr


def test_the_program_prints_an_action(folder: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("0", "1")


def test_its_flags_are_there_and_its_figures_are_the_files() -> None:
    flags = set(re.findall(r"--([a-z][a-z-]+)", PAGE)) - {"env", "episodes", "duration-s"}
    assert flags <= {name.replace("_", "-") for name in SB3Flags.__dataclass_fields__}
    figures = json.loads((CARTPOLE / "returns.json").read_text())
    for side in ("stable_baselines3", "policyserve"):
        assert f"{figures[side]['mean']:.1f}" in PAGE
