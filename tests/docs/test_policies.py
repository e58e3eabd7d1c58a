"""docs/policies.md and docs/onnx.md: their commands serve, and their program runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client
from policyserve.policies import registry
from policyserve.policies.onnx.flags import OnnxFlags
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.policies.frameworks import import_or_skip
from tests.policies.onnx.models import Value, choosing, copying, linear, save

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("policies", "onnx")}
COMMANDS = [
    shlex.split(line)
    for page in PAGES.values()
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("policyserve ")
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the models that the pages name."""
    import_or_skip("onnxruntime")
    obs, actions = Value("obs", [1, 2]), Value("actions", [1, 2])
    save(tmp_path / "policy.onnx", linear(np.eye(3)))
    save(tmp_path / "balance.onnx", choosing(np.array([[0, 0], [0, 0.5], [0, 2], [0, 1]])))
    arms = [Value("left_arm", [1, 2]), Value("right_arm", [1, 3])]
    save(tmp_path / "two_arms.onnx", copying([obs, Value("right", [1, 3])], arms))
    save(tmp_path / "recurrent.onnx", copying([obs, Value("memory", [1, 4])], [actions, Value("new_memory", [1, 4])]))
    save(tmp_path / "camera.onnx", copying([Value("camera", ["N", 3, 4, 5])], [Value("actions", ["N", 3, 4, 5])]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_works(command: list[str], folder: Path) -> None:
    if command[1] == "bench" or command[1] == "eval":
        import_or_skip("gymnasium")
        done = run(*POLICYSERVE, *command[1:], cwd=folder)
        assert done.returncode == 0, done.stderr
        return
    with serving([*POLICYSERVE, *command[1:], "--host", "127.0.0.1", "--port", "0"], cwd=folder) as server:
        done = run(sys.executable, "-m", "policyserve.client", server.url)
        assert done.returncode == 0, done.stderr


def test_the_program_prints_an_action(folder: Path) -> None:
    assert what_is_said_by(0, folder).endswith("[0. 0. 0.]\n")


def test_the_program_that_follows_the_curve_stays_near_it(tmp_path: Path) -> None:
    found = re.fullmatch(r"(\d\.\d\d) m from the nearer way\n", what_is_said_by(1, tmp_path))
    assert found is not None
    assert float(found.group(1)) < 1


def what_is_said_by(number: int, folder: Path) -> str:
    """What a program of the page prints."""
    program = re.findall(r"```python\n(.*?)```", PAGES["policies"], re.DOTALL)[number]
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_renamed_key_is_what_a_client_sends(folder: Path) -> None:
    arguments = ("serve", "two_arms.onnx", "--action", "left_arm", "--rename", "observation/state=obs,tool=right")
    with (
        serving([*POLICYSERVE, *arguments, "--host", "127.0.0.1", "--port", "0"], cwd=folder) as server,
        Client(server.url) as client,
    ):
        sent = {"observation/state": [1, 2], "right": [0, 0, 0]}
        assert client.infer(sent).actions.tolist() == [1, 2]


def test_every_scheme_and_flag_of_the_pages_is_there() -> None:
    for scheme in re.findall(r"^\| `([\w-]+):(?:FILE|FOLDER|URL)`", PAGES["policies"], re.MULTILINE):
        assert scheme in registry.names()
    flags = set(re.findall(r"--([a-z][a-z-]+)", PAGES["onnx"])) - {"isolate"}
    assert flags <= {name.replace("_", "-") for name in OnnxFlags.__dataclass_fields__}
