"""Which Pythons and dependencies `make pythons` takes, and which tests; the runs themselves are CI's."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.serving import ROOT

HERE = "{}.{}".format(*sys.version_info[:2])


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("check_pythons")


def test_the_oldest_dependencies_are_pyprojects_lower_bounds(program: Any) -> None:
    lines = program.oldest_dependencies().splitlines()
    assert {"numpy==1.26", "websockets==15.0", "msgpack==1.2.0", "h11==0.14"} <= set(lines)
    assert not [line for line in lines if line.startswith(("pytest", "torch", "uvloop"))]


def test_a_python_on_the_path_is_found(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"python{HERE}").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / f"python{HERE}").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert program.find_python(HERE) == f"python{HERE}"


def test_a_python_that_does_not_run_is_none(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyenv's shims stand on the path for versions that are not switched on."""
    (tmp_path / "python3.99").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.99").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert program.find_python("3.99") is None


@pytest.mark.parametrize("told", [True, False], ids=["PYENV_ROOT", "shim"])
def test_a_python_of_pyenv_is_found_though_its_shim_does_not_run(
    told: bool, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home folder is another's, so that only what is told leads to it."""
    ours = tmp_path / "pyenv" / "versions" / f"{HERE}.99" / "bin" / "python"
    shim = tmp_path / "pyenv" / "shims" / f"python{HERE}"
    for path, line in ((ours, f'exec "{sys.executable}" "$@"'), (shim, "exit 127")):
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    if told:
        monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert program.find_python(HERE) == str(ours)


def test_a_python_that_is_not_here_is_named_and_left_out(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "find_python", lambda version: None if version == "3.13" else "python")
    assert [job.name for job in program.find_jobs(["3.10", "3.13", "oldest"])] == ["3.10", "oldest"]
    assert "3.13" in capsys.readouterr().out


def test_the_oldest_dependencies_meet_the_oldest_python_that_is_here(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "find_python", lambda version: None if version == "3.10" else f"python{version}")
    assert [job.python for job in program.find_jobs(["oldest"])] == ["python3.11"]


def test_every_suite_that_it_runs_or_leaves_out_exists(program: Any) -> None:
    for name in (*program.SUITES, *program.LEFT_OUT):
        assert (ROOT / "tests" / name).exists(), name


def test_a_job_that_cannot_be_installed_has_failed(program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert not program._passes(program.Job("broken", "false"))
    assert "false -m venv" in capsys.readouterr().out


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("false", 0)])
def test_it_fails_where_no_job_runs_and_one_must(ci: str, code: int) -> None:
    environment = {"PATH": "/nowhere", "PYENV_ROOT": "/nowhere", "CI": ci}
    command = [sys.executable, str(ROOT / "scripts" / "check_pythons.py"), "--job", "3.14"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "left out" in done.stdout
