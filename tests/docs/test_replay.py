"""docs/replay.md: its commands have the flags that it shows, and what it shows is what is printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.serving import ROOT
from tests.cli.terminals import knows, run_in
from tests.replay.recorded import record, walk
from tests.replay.test_recordings import RECORDINGS, another_checkpoint

PAGE = (ROOT / "docs" / "replay.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SAME, PARTED = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e-\d+)?")


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own recording and checkpoint, where the page has them."""
    (tmp_path / "runs").mkdir()
    shutil.copy(RECORDINGS / "pendulum_sac.mcap", tmp_path / "runs" / "episode.mcap")
    another_checkpoint(tmp_path / "next")
    monkeypatch.chdir(tmp_path)


def without_numbers(text: str) -> str:
    """The lines without their numbers, whose breaks depend on how long those are."""
    return " ".join(_NUMBER.sub("0", text).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_their_flags(command: str, recording: None) -> None:
    words = shlex.split(command)
    assert words[0] == "policyserve"
    if "serve.toml" in words:
        Path("serve.toml").write_text('policy = "pendulum_sac"\n')
    if "my_policy.py:policy" in words:
        Path("my_policy.py").write_text("policy = lambda observation: observation\n")
    assert knows(words[1:])


def test_the_tests_that_it_names_are_there() -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE):
        assert f"def {name}(" in (ROOT / path).read_text()


def test_the_same_policy_reads_as_the_page_shows(recording: None) -> None:
    said = run_in("pipe", ["replay", "runs/episode.mcap", "pendulum_sac"])
    assert said.code == 0
    lines, shown = said.out.splitlines(), SAME.splitlines()
    head = shown.index("")
    assert lines[:head] == shown[:head]
    assert lines[-1] == shown[-1] or lines[-1].startswith("within the tolerance: ")  # of another kind of processor


def test_another_checkpoint_reads_as_the_page_shows(recording: None) -> None:
    words = ["replay", "runs/episode.mcap", "pendulum_sac", "--checkpoint-dir", "next/checkpoints"]
    said = run_in("pipe", [*words, "--plot", "out.png"])
    assert said.code == 1
    assert without_numbers(said.out) == without_numbers(PARTED)


def test_the_page_names_every_key_of_the_object(recording: None) -> None:
    words = ["replay", "runs/episode.mcap", "pendulum_sac", "--checkpoint-dir", "next/checkpoints"]
    told = json.loads(run_in("pipe", [*words, "--json"]).out)
    for key in (*told, *told["dimensions"][0], *told["worst"]):
        assert f"`{key}`" in PAGE


def test_its_sampler_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page_sampler.py").write_text(f"{PROGRAM}\n\npolicy = Sampler()\n")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"np": np}
    exec(PROGRAM, namespace)
    record(tmp_path / "noisy.mcap", namespace["Sampler"](), [walk(5)])
    said = run_in("pipe", ["replay", "noisy.mcap", "page_sampler.py:policy", "--tolerance", "0"])
    assert said.code == 0, said
    assert "5 requests asked with the recorded answer's own noise" in said.out
