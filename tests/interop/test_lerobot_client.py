"""LeRobot's RobotClient 0.4.4 as PyPI has it drives an ACT that LeRobot saved, served by this package."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from policyserve.policies.loading import load_policy
from tests.interop.environments import Environments
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import folder
from tests.server.lerobot_grpc.calling import lerobot_port
from tests.server.live import serving
from tests.shared import shared_path

pytestmark = [pytest.mark.interop, pytest.mark.heavy, pytest.mark.timeout(1800)]

CASE = "act_two_cameras"
PROGRAM = Path(__file__).parent / "programs" / "lerobot_client_program.py"


def test_robot_clients_execute_the_chunks_that_lerobot_itself_gives(environments: Environments, tmp_path: Path) -> None:
    import_or_skip("torch")
    import_or_skip("grpc")
    python = environments.python("lerobot")
    policy = load_policy(f"lerobot:{folder(CASE)}", device="cpu", horizon="all")
    golden = shared_path("any_policy", "lerobot", CASE, "golden.npz")
    with serving(policy, lerobot=0) as live:
        address = f"127.0.0.1:{lerobot_port(live)}"
        command = [python, PROGRAM, address, "lerobot act", golden]
        options: dict[str, Any] = {"cwd": tmp_path, "text": True}  # LeRobot's client writes a log where it runs
        # A client for each robot: channels of one process may share a connection.
        running = [
            subprocess.Popen([*command, str(sample)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
            for sample in (0, 1)
        ]
        for one in running:
            out, complaints = one.communicate()
            assert out.strip().endswith("25 right actions"), complaints
        refused = subprocess.run(
            [python, PROGRAM, address, "user/model", golden, "0"], capture_output=True, check=False, **options
        )
        assert "expected a policy that is served here ('lerobot act')" in refused.stdout + refused.stderr
