"""docs/lerobot.md: its commands serve, and what it tells of modes, files and flags is so."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.package import REMEMBERING
from policyserve.server.config import ServerConfig
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import copied

PAGE = (ROOT / "docs" / "lerobot.md").read_text()
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("policyserve ")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the policies that the page names."""
    import_or_skip("torch")
    import_or_skip("safetensors")
    for case, named in (("act_state", "run"), ("act_two_cameras", "act"), ("diffusion_state_ddim", "diffusion")):
        copied(case, tmp_path).rename(tmp_path / named)
    checkpoint = tmp_path / "outputs/train/run/checkpoints/000500"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run").rename(checkpoint / "pretrained_model")
    (tmp_path / "info.json").write_text(
        json.dumps({"features": {"action": {"names": [f"joint{i}" for i in range(7)]}}})
    )
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_serves(command: list[str], folder: Path) -> None:
    if "--lerobot" in command:
        import_or_skip("grpc")
        command = [word if word != "8080" else "0" for word in command]
    with serving([*POLICYSERVE, *command[1:], "--host", "127.0.0.1", "--port", "0"], cwd=folder) as server:
        done = run(sys.executable, "-m", "policyserve.client", server.url)
        assert done.returncode == 0, done.stderr


def test_every_flag_and_type_of_the_page_is_there() -> None:
    page = re.sub(r"(?s)```bash\npython -m lerobot.*?```", "", PAGE)  # the robot's own command
    flags = set(re.findall(r"--([a-z][a-z_-]+)", page))
    flags -= {"lerobot-python", "pretrained_name_or_path"}  # of the benchmark, and of LeRobot's client
    known = {*LeRobotFlags.__dataclass_fields__, *ServerConfig.__dataclass_fields__}
    assert flags <= {name.replace("_", "-") for name in known}
    assert all(kind in PAGE for kind in REMEMBERING)
