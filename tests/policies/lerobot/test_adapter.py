"""`lerobot:PATH` on the command line: what is refused is refused in one line, before a port is opened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from policyserve.core.policy import ActionChunk
from policyserve.policies import registry
from policyserve.policies.lerobot.layout import WEIGHTS
from policyserve.policies.lerobot.processors import AFTER
from policyserve.policies.loading import load_policy
from tests.cli.serving import POLICYSERVE, ROOT
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import TOLERANCE, copied, edit, folder, frames, golden, one
from tests.policies.lerobot.test_statistics import AFTER_NUMBERS, renamed


def test_a_bare_path_and_a_scheme_mean_the_same() -> None:
    import_or_skip("torch")
    for target in (f"lerobot:{folder('act_state')}", str(folder("act_state"))):
        source = registry.find(target).source(registry.find(target).defaults(None))
        assert source.title == "a LeRobot act policy"
        assert source.check is not None
        source.check()
    assert source.origin.endswith("(a LeRobot policy, by its config.json)")


def test_a_program_loads_one_by_its_path() -> None:
    import_or_skip("torch")
    import_or_skip("safetensors")
    policy = load_policy(f"lerobot:{folder('act_state')}", device="cpu", horizon="all")
    (answer,) = policy.infer([one(frames("act_state", "chunk", 0, 0))])
    assert isinstance(answer, ActionChunk)
    np.testing.assert_allclose(answer.actions, golden("act_state")["chunk/actions"][0], atol=TOLERANCE, rtol=0)
    policy.close()


def damage(case: str, place: Path, change: Callable[[Path], object]) -> Path:
    target = copied(case, place)
    change(target)
    return target


def with_class(target: Path) -> None:
    values = json.loads((target / AFTER).read_text())
    values["steps"].insert(0, {"class": "evil.Step", "config": {}})
    (target / AFTER).write_text(json.dumps(values))


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no statistics": (
        "act_state",
        lambda target: renamed(target / AFTER_NUMBERS, "action.", "so100.buffer.action."),
        "actions would be sent un-normalised",
    ),
    "a class path": ("act_state", with_class, "imports nothing that a file names"),
    "a pointer of Git LFS": (
        "act_state",
        lambda target: (target / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "got a pointer of Git LFS; fetch them: git lfs pull",
    ),
    "weights that are cut short": (
        "act_state",
        lambda target: (target / WEIGHTS).write_bytes((target / WEIGHTS).read_bytes()[:5000]),
        "not a whole safetensors file",
    ),
    "no weights": ("act_state", lambda target: (target / WEIGHTS).unlink(), "No such file"),
    "other sizes": (
        "act_state",
        lambda target: edit(target / "config.json", chunk_size=9),
        "model.decoder_pos_embed.weight: expected (9, 32), got (8, 32)",
    ),
    "a type that is not ours": ("act_state", lambda target: edit(target / "config.json", type="pi05"), "pi05 policy"),
    "JSON that is none": ("act_state", lambda target: (target / "config.json").write_text("{"), "got"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_served_ends_in_one_line_before_a_port_is_open(name: str, tmp_path: Path) -> None:
    case, change, told = REFUSED[name]
    target = damage(case, tmp_path, change)
    command = [*POLICYSERVE, "serve", f"lerobot:{target}", "--host", "127.0.0.1", "--port", "0"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert said.returncode in (1, 2)
    assert told in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert "ws://" not in said.stdout + said.stderr


def test_a_smolvla_without_the_package_is_told_what_to_do() -> None:
    if find_spec("lerobot") is not None:
        pytest.skip("lerobot is installed")
    command = [*POLICYSERVE, "serve", f"lerobot:{folder('smolvla_tiny')}", "--port", "0"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert said.returncode == 1
    assert "is a LeRobot smolvla policy; policyserve runs act and diffusion itself" in said.stderr
    assert "install policyserve where lerobot is installed" in said.stderr


def test_help_and_refusals_import_no_framework(tmp_path: Path) -> None:
    target = damage("act_state", tmp_path, with_class)
    program = f"""
import sys
from policyserve.core.errors import ConfigError
from policyserve.core.policy import ActionChunk
from policyserve.policies import registry
adapter = registry.find("lerobot:{target}")
adapter.help, adapter.defaults(None)
try:
    adapter.source(adapter.defaults(None)).check()
except ConfigError as error:
    print(error)
print(sorted({{"torch", "safetensors", "lerobot", "evil"}} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert said.stdout.endswith("policyserve imports nothing that a file names\n[]\n"), said.stderr
