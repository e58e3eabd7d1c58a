"""The drop-in distribution: the originals' import paths, and that it keeps away where the originals are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.serving import ROOT

MODULES = {
    "vibe_rl.serving": ("PolicyServer",),
    "vibe_rl.serving.websocket_server": ("PolicyServer",),
    "vibe_rl.policies": ("create_trained_policy",),
    "vibe_rl.configs.presets": ("PRESETS", "TrainConfig"),
    "wall_x.serving.websocket_policy_server": ("WebsocketPolicyServer", "BasePolicy"),
    "wall_x.serving.launch_serving": ("main", "ModelConfig"),
    "wall_x.serving.client": ("WallXClient",),
    "wall_x.serving.policy.wall_x_policy": ("WallXPolicy",),
}


def python(program: str, *more_paths: Path) -> subprocess.CompletedProcess[str]:
    """Run a program where the drop-in is installed."""
    paths = [str(ROOT / "drop-in" / "src"), *map(str, more_paths)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, "-c", program], env=environment, text=True, capture_output=True, check=False)


def test_every_name_is_policyserves_own() -> None:
    program = "from importlib import import_module\n" + "".join(
        f"assert getattr(import_module({module!r}), {name!r}) is not None\n"
        for module, names in MODULES.items()
        for name in names
    )
    program += (
        "from vibe_rl.serving import PolicyServer\n"
        "import policyserve.compat.vibe_rl\n"
        "assert PolicyServer is policyserve.compat.vibe_rl.PolicyServer\n"
    )
    ended = python(program)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("original", ["vibe-rl", "wall-x"])
@pytest.mark.parametrize("module", ["vibe_rl.serving", "wall_x.serving.client"])
def test_it_refuses_to_be_imported_beside_an_original(tmp_path: Path, original: str, module: str) -> None:
    info = tmp_path / f"{original.replace('-', '_')}-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {original}\nVersion: 0.3\n")
    ended = python(f"import {module}", tmp_path)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("ImportError: policyserve-drop-in stands in for")
    assert f"{original} 0.3 is installed" in last
