"""`policyserve new`: what it writes serves, answers and passes its own test."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.cli import main
from tests.cli.serving import POLICYSERVE, run, serving

OBSERVATION = {
    "observation/image": np.zeros((224, 224, 3), np.uint8),
    "observation/state": np.zeros(8),
    "prompt": "fold",
}


def test_what_is_written_serves_and_answers_as_the_lines_that_it_prints_say(tmp_path: Path) -> None:
    written = run(*POLICYSERVE, "new", "my_policy.py", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    told = written.stdout.splitlines()
    assert told[0] == 'my_policy.py is written: put your model where it says "your model here"'
    assert told[1] == "  serve it   policyserve serve my_policy:policy"
    assert max(map(len, told)) <= 80
    assert (tmp_path / "my_policy.py").read_text().count("your model here") == 1
    command = [*POLICYSERVE, "serve", "my_policy:policy", "--host", "127.0.0.1", "--port", "0"]
    with serving(command, cwd=tmp_path) as server, Client(server.url) as client:
        assert client.infer(OBSERVATION).actions.shape == (16, 7)


def test_its_own_test_passes_and_fails_when_the_spec_is_not_met(tmp_path: Path) -> None:
    file = tmp_path / "arm.py"
    main(["new", str(file)])
    pytest_it = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "arm.py")
    assert "1 passed" in run(*pytest_it, cwd=tmp_path).stdout
    file.write_text(file.read_text().replace("np.zeros((HORIZON, 7)", "np.zeros((HORIZON, 6)"))
    assert "expected float32 (16, 7)" in run(*pytest_it, cwd=tmp_path).stdout


@pytest.mark.parametrize("name", ["my_policy", "arm_2", "policy_spec", "image_spec", "policy", "_", "módulo"])
def test_any_modules_name_gives_a_policy_that_answers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["new", f"{name}.py"])
    assert f"policyserve serve {shlex.quote(f'{name}:policy')}\n" in capsys.readouterr().out
    module: dict[str, Any] = {}
    exec((tmp_path / f"{name}.py").read_text(), module)
    policy = module["policy"]()
    assert policy.spec.name == name
    assert policy._function(policy.spec.example()).shape == (16, 7)


def test_in_another_folder_it_is_served_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["new", f"{tmp_path}/arm.py"])
    assert f"policyserve serve {tmp_path}/arm.py:policy" in capsys.readouterr().out


def test_help_says_what_it_writes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["new", "--help"])
    told = capsys.readouterr().out
    assert told.startswith("usage: policyserve new FILE")
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize("argv", [[], ["a.py", "b.py"], ["--kind"]])
def test_it_takes_one_file(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_request:
        main(["new", *argv])
    assert exit_request.value.code == 2
    assert "expected one file to write, such as my_policy.py, got " in capsys.readouterr().err


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my_policy.py"
    file.write_text("mine")
    with pytest.raises(SystemExit) as exit_request:
        main(["new", str(file)])
    assert exit_request.value.code == 2
    assert file.read_text() == "mine"
    assert "my_policy.py is there already and stays as it is; choose another name" in capsys.readouterr().err
