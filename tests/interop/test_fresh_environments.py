"""Each kind of policy in an environment of its own, with this package and the extra of that kind alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.arrays import Array
from tests.cli.serving import ROOT, serving
from tests.policies.remote.upstream import Summing
from tests.server import live
from tests.shared import shared_path

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

TOLERANCE = 1e-4
PORT_0 = ("--host", "127.0.0.1", "--port", "0")


class Case(NamedTuple):
    """A golden case. keys: of the observation, by what golden.npz calls them; actions: what it calls the answers."""

    target: tuple[str, ...]
    keys: Mapping[str, str]
    actions: str = "actions"


CASES = {
    "onnx": Case(("onnx", "isaaclab_mlp", "policy.onnx"), {"obs": "obs"}),
    "sb3": Case(("sb3", "ppo_box", "model.zip"), {"obs": "obs"}),
    "torch": Case(("torch", "export_mlp_static", "policy.pt2"), {"obs": "input"}),
    "lerobot": Case(
        ("lerobot", "act_state", "pretrained_model"),
        {key: f"chunk/obs/{key}" for key in ("observation.state", "observation.environment_state")},
        "chunk/actions",
    ),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    (found,) = folder.glob("policyserve-*.whl")
    return found


def installed(wheel: Path, folder: Path, extra: str) -> str:
    """The command `policyserve` of a new environment with this wheel and one extra; empty: with none."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = f"policyserve[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
    command = [folder / "bin/python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wanted]
    subprocess.run(command, check=True, env=own_environment())
    return str(folder / "bin/policyserve")


def own_environment() -> dict[str, str]:
    """Ours without what would have another interpreter import this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.parametrize("extra", CASES)
def test_a_file_is_served_with_the_extra_of_its_kind(
    extra: str, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[extra]
    command = installed(wheel, tmp_path / "venv", extra)
    arrays = dict(np.load(shared_path("any_policy", *case.target[:2], "golden.npz")))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    path = shared_path("any_policy", *case.target)
    with serving([command, "serve", str(path), *PORT_0], cwd=tmp_path) as server:
        with Client(server.url) as client:
            for row, wanted in enumerate(arrays[case.actions]):
                found = client.infer({key: observed(arrays[name][row]) for key, name in case.keys.items()}).actions
                np.testing.assert_allclose(found, wanted[: len(found)], rtol=0, atol=TOLERANCE)
        assert server.stop()[0] == 0


def observed(values: Array) -> Any:
    """The newest frame: golden observations of LeRobot have an axis of frames."""
    return values[-1] if values.ndim > 1 else values


def test_another_server_is_served_with_no_extra(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = installed(wheel, tmp_path / "venv", "")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    one = np.array([1, 0], np.float32)
    with (
        live.serving(Summing()) as theirs,
        serving([command, "serve", f"remote:{theirs.url()}", *PORT_0], cwd=tmp_path) as server,
        Client(server.url) as client,
    ):
        assert [client.infer({"obs": one}).actions[0].tolist() for _ in range(3)] == [[1, 0], [2, 0], [3, 0]]
