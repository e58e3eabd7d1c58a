"""The order of `make gpu`, and that the first wrong result ends it, with a stand-in for what its steps run."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.serving import ROOT


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("check_gpu")


@pytest.fixture
def every_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


class StandIn:
    """Runs nothing: keeps the commands, and writes what a GPU of ours would have said."""

    def __init__(self, folder: Path, **wrong: Any) -> None:
        self.commands: list[str] = []
        self.environments: list[Mapping[str, str]] = []
        self._folder, self._wrong = folder, wrong

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], output: Path) -> int:
        self.commands.append(" ".join(command))
        self.environments.append(environment)
        output.write_text(self._wrong.get("output", {}).get(output.stem, "41 passed in 7.00s\n"), encoding="utf-8")
        for place, word in enumerate(command):
            if word == "--json":
                self._write(Path(command[place + 1]))
        return self._wrong.get("status", {}).get(output.stem, 0)

    def _write(self, path: Path) -> None:
        row = {"stage": "ten flow steps", "batch": 1, "seconds": 0.02, "limit_s": self._wrong.get("limit_s", 0.005)}
        eager = {**row, "stage": "ten, no graph", "seconds": self._wrong.get("eager", 0.1)}
        call = {"shape": "three observations at once", "first_s": self._wrong.get("first_s", 0.03), "second_s": 0.02}
        report = {
            "gpu": {"peak_reserved_bytes": self._wrong.get("reserved", 9e9)},
            "stages": [row, eager],
            "first_calls": [call],
        }
        path.write_text(json.dumps(report), encoding="utf-8")


@pytest.mark.usefixtures("every_tool")
def test_right_comes_before_fast_and_fast_before_serving(program: Any, tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path)
    assert program.run_steps(program.STEPS, tmp_path, stand_in) == 0
    assert [step.name for step in program.STEPS] == ["A1", "A2", "A3", "A4", "A5", "A6", "B1", "B2", "B3", "C1", "C2"]
    wanted = ("nvidia-smi", "torch", "not gpu", "-m gpu", "-m gpu", "memcheck", "causal", "upstream_sdpa", "--profile")
    for words, command in zip((*wanted, "serve_on_gpu.py", "nvidia-smi"), stand_in.commands, strict=True):
        assert words in command
    assert stand_in.environments[4] == {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"}
    assert not [command for command in stand_in.commands if "{" in command]


def test_the_checkpoint_is_written_once(program: Any, tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path)
    program.run_steps(program.STEPS, tmp_path, stand_in)
    benchmarks = [command for command in stand_in.commands if "benchmarks/wall_x.py" in command]
    assert len(benchmarks) == 3
    assert all(f"--checkpoint {tmp_path / 'checkpoint'}" in command for command in benchmarks)


@pytest.mark.parametrize(
    ("wrong", "last", "told"),
    [
        ({"status": {"A3": 1}}, "A3", "it ended with 1"),
        ({"output": {"A4": "no CUDA graph, every step is launched anew\n3 passed in 1s\n"}}, "A4", "no CUDA graph"),
        ({"output": {"A4": "41 skipped in 1s\n"}}, "A4", "expected tests that pass and none that is skipped"),
        ({"output": {"A5": "3 passed, 1 skipped in 1s\n"}}, "A5", "none that is skipped, got 3 passed, 1 skipped"),
        ({"reserved": 13e9}, "B1", "13.0 GB of the GPU reserved, expected at most 12"),
        ({"eager": 0.03}, "B1", "ten steps take 20.0 ms in a graph, 30.0 without"),
        ({"limit_s": 0.03}, "B1", "faster than this device can be: ten flow steps; is the device shared?"),
        ({"first_s": 0.4}, "B3", "the first call of three observations at once takes 380 ms more, expected 50"),
        ({"status": {"C1": 1}}, "C1", "it ended with 1"),
    ],
)
@pytest.mark.usefixtures("every_tool")
def test_the_first_wrong_result_ends_it(
    wrong: dict[str, Any], last: str, told: str, program: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run_steps(program.STEPS, tmp_path, StandIn(tmp_path, **wrong)) == 1
    printed = capsys.readouterr()
    assert f"{last} is WRONG: " in printed.err
    assert told in printed.err
    assert "all right" not in printed.out
    begun = [line.split()[0] for line in printed.out.splitlines()]
    names = [step.name for step in program.STEPS]
    assert begun == names[: names.index(last) + 1]


def test_what_failed_on_the_gpu_is_looked_at_closer(program: Any, tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path, status={"A4": 1})
    assert program.run_steps(program.STEPS, tmp_path, stand_in) == 1
    assert stand_in.commands[-1].startswith("env CUDA_LAUNCH_BLOCKING=1 ")


def test_a_tool_that_is_not_installed_is_left_out_and_said(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert program.run_steps(program.STEPS, tmp_path, StandIn(tmp_path)) == 0
    assert "A6 left out: compute-sanitizer is not installed" in capsys.readouterr().out


def test_a_command_that_is_not_there_is_a_wrong_result(program: Any, tmp_path: Path) -> None:
    assert program.run_here(["no-such-program-of-ours"], {}, tmp_path / "A1.txt") == 127
    assert "no-such-program-of-ours" in (tmp_path / "A1.txt").read_text()


def test_a_commands_output_is_kept(program: Any, tmp_path: Path) -> None:
    command = ("python", "-c", "import os; print('passed', os.environ['MARK'])")
    step = program.Step("X", "prints", command, environment={"MARK": "7"})
    assert program.run_steps([step], tmp_path, program.run_here) == 0
    assert (tmp_path / "X.txt").read_text() == "passed 7\n"


def test_without_a_gpu_there_is_one_line_and_it_fails(
    program: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if program.what_is_missing() is None:
        pytest.skip("there is a GPU")
    assert program.main(["--folder", str(tmp_path / "results")]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("check_gpu: expected ")
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "results").exists()
