"""openpi-client as PyPI has it, against an ACT that LeRobot saved."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from policyserve.policies.loading import load_policy
from tests.interop.environments import Environments
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import folder
from tests.server.live import serving
from tests.shared import shared_path

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

CASE = "act_two_cameras"
PROGRAM = Path(__file__).parent / "programs" / "openpi_act_program.py"
RENAME = {
    "observation/image": "observation.images.top",
    "observation/wrist_image": "observation.images.wrist",
    "observation/state": "observation.state",
}


def test_the_original_client_gets_lerobots_chunks(environments: Environments) -> None:
    import_or_skip("torch")
    python = environments.python("openpi")
    rename = ",".join(f"{client}={own}" for client, own in RENAME.items())
    policy = load_policy(f"lerobot:{folder(CASE)}", device="cpu", horizon="all", rename=rename)
    golden = shared_path("any_policy", "lerobot", CASE, "golden.npz")
    with serving(policy) as live:
        command = [python, PROGRAM, str(live.port), golden]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2 right answers", done.stderr
