"""docs/inspect.md: its commands have their flags, its screens are what is printed, and its keys are all there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.serving import ROOT
from tests.cli.terminals import knows, run_in
from tests.policies.frameworks import import_or_skip
from tests.policies.onnx.models import Value, copying, save

PAGE = (ROOT / "docs" / "inspect.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
MODEL, REFUSED = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's directory, with the models that the page names."""
    import_or_skip("onnxruntime")
    robot = tmp_path / "robot"
    robot.mkdir()
    obs, hidden = Value("obs", [1, 12]), Value("h_in", [1, 1, 64])
    save(robot / "policy.onnx", copying([obs, hidden], [Value("actions", [1, 12]), Value("h_out", [1, 1, 64])]))
    arms = [Value("left_arm", [1, 2]), Value("right_arm", [1, 3])]
    save(robot / "two_arms.onnx", copying([Value("obs", [1, 2]), Value("right", [1, 3])], arms))
    monkeypatch.chdir(robot)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return robot


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_their_flags(command: str, folder: Path) -> None:
    program, *words = shlex.split(command)
    assert program == "policyserve"
    (folder / "my_policy.py").write_text("def policy(observation):\n    return [0.0]\n")
    assert knows(words)


def test_a_model_reads_as_the_page_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.policies.onnx.loading.is_quick", lambda _: True)  # a busy machine is not
    said = run_in("terminal", ["inspect", "policy.onnx"], NO_COLOR="1", TERM="dumb")
    assert (said.code, said.out.replace("\r", ""), said.err) == (0, MODEL, "")


def test_a_refusal_reads_as_the_page_shows(folder: Path) -> None:
    said = run_in("terminal", ["inspect", "two_arms.onnx"], NO_COLOR="1")
    assert (said.code, said.out, said.err.replace("\r", "")) == (1, "", REFUSED)


def test_the_page_names_every_key_and_every_row(folder: Path) -> None:
    told = json.loads(run_in("pipe", ["inspect", "policy.onnx", "--json"]).out)
    for key in (*told, *told["state"], *told["batch"], *told["spec"]):
        assert f"`{key}`" in PAGE
    for row in re.findall(r"^  (\w+) ", MODEL, re.MULTILINE):
        assert f"`{row}`" in PAGE
