"""scripts/serve_policy.py, the founding script: presets alone, with a checkpoint, in vibe_rl's dialect."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from policyserve import Client
from policyserve.policies.vibe_rl import demo_directory
from tests.cli.serving import run, serving

SCRIPT = (sys.executable, "scripts/serve_policy.py")
CARTPOLE = str(demo_directory("cartpole_ppo") / "checkpoints")
PORT_0 = ("--host", "127.0.0.1", "--port", "0")


def test_it_serves_a_checkpoint_and_speaks_vibe_rls_dialect_unless_told_otherwise() -> None:
    with serving([*SCRIPT, "cartpole_ppo", "--checkpoint_dir", CARTPOLE, *PORT_0]) as server:
        with Client(server.url, dialect="vibe_rl") as client:
            assert client.infer({"obs": np.zeros(4, np.float32)}).actions in (0, 1)
        assert CARTPOLE in server.lines[1]
    told = " ".join(run(*SCRIPT, "cartpole_ppo", "--help-all").stdout.split())
    assert re.search(r"--dialect TEXT [^(]*\(default: vibe_rl\)", told)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "error: preset: expected one of cartpole_ppo, "),
        (("cartpole_pop",), "got 'cartpole_pop' (did you mean cartpole_ppo?)"),
        (("wall-x",), "got 'wall-x'"),
        (("cartpole_ppo",), "error: --checkpoint_dir is required\n"),
        (("cartpole_ppo", "--checkpoint_dir", ""), "--checkpoint-dir: expected a value, got nothing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(argv: tuple[str, ...], said: str) -> None:
    done = run(*SCRIPT, *argv)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_names_the_presets() -> None:
    done = run(*SCRIPT, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: serve_policy.py PRESET --checkpoint_dir PATH")
    assert "pendulum_sac" in done.stdout
