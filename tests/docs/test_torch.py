"""docs/torch.md: its commands serve, and its flags are there."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from policyserve.policies.torch_files.flags import TorchFlags
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.policies.frameworks import import_or_skip
from tests.policies.torch_files.cases import LSTM, file_of

PAGE = (ROOT / "docs" / "torch.md").read_text()
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("policyserve ")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the programs that the page names."""
    import_or_skip("torch")
    from tests.policies.torch_files.networks import Pair, Seeing, scripted

    for case, name in (
        ("jit_isaaclab_mlp", "policy.pt"),
        ("export_mlp_static", "policy.pt2"),
        (LSTM, "recurrent.pt"),
    ):
        shutil.copy(file_of(case), tmp_path / name)
    scripted(Seeing(), tmp_path / "camera.pt")
    scripted(Pair(), tmp_path / "two_arms.pt")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_serves(command: list[str], folder: Path) -> None:
    with serving([*POLICYSERVE, *command[1:], "--host", "127.0.0.1", "--port", "0"], cwd=folder) as server:
        done = run(sys.executable, "-m", "policyserve.client", server.url)
        assert done.returncode == 0, done.stderr


def test_every_flag_of_the_page_is_there() -> None:
    flags = set(re.findall(r"--([a-z][a-z-]+)", PAGE)) - {"isolate"}
    assert flags <= {name.replace("_", "-") for name in TorchFlags.__dataclass_fields__}
