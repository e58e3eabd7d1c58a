"""docs/adapters.md: its package, installed, is served by its command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import policyserve
from policyserve import Client
from policyserve.policies.registry import Adapter, find
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.policies.packages import install

PAGE = (ROOT / "docs" / "adapters.md").read_text()


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    entries = dict(re.findall(r'^(\w+) = "(.*)"$', block("toml"), re.MULTILINE))
    install(tmp_path, "robot-policies", entries, {"robot_policies": block("python")})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    np.save(tmp_path / "weights.npy", np.array([[1.0, 2.0]]))
    return tmp_path


def test_the_pages_package_is_served_by_the_pages_command(package: Path) -> None:
    _, *words = shlex.split(block("bash"))
    with serving([*POLICYSERVE, *words, "--host", "127.0.0.1", "--port", "0"], cwd=package) as server:
        assert server.lines[0] == f"policyserve {policyserve.__version__} · a matrix policy\n"
        with Client(server.url) as client:
            assert client.infer({"obs": np.array([1, 1], np.float32)}).actions.tolist() == [6]
    told = run(*POLICYSERVE, "list", cwd=package).stdout
    assert re.search(r"matrix:FILE +a matrix from observations to actions", told)
    told = run(*POLICYSERVE, *words, "--help", cwd=package).stdout
    assert "What every action is multiplied by" in told
    assert told.index("--gain") < told.index("--port")


@pytest.mark.usefixtures("package")
def test_its_adapter_has_all_members_and_the_table_names_each() -> None:
    assert isinstance(find("matrix:weights.npy"), Adapter)
    members = ("help", "rest", "flags", "defaults", "source")
    assert all(re.search(rf"^\| `{member}", PAGE, re.MULTILINE) for member in members)


def test_a_value_that_can_never_be_and_a_missing_file_end_as_the_table_says(package: Path) -> None:
    for words, code, said in (
        (("matrix:weights.npy", "--gain", "0"), 2, "gain: expected another number than 0"),
        (("matrix:nowhere.npy",), 1, "nowhere.npy"),
    ):
        done = run(*POLICYSERVE, "serve", *words, "--host", "127.0.0.1", "--port", "0", cwd=package)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
