"""LeRobot's RobotClient 0.4.4 as PyPI has it drives an ACT that LeRobot saved, served by this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from policyserve.policies.loading import load_policy
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import folder
from tests.server.lerobot_grpc.calling import lerobot_port
from tests.server.live import serving
from tests.shared import shared_path

pytestmark = [pytest.mark.interop, pytest.mark.heavy, pytest.mark.timeout(1800)]

CASE = "act_two_cameras"
PROGRAM = Path(__file__).parent / "programs" / "lerobot_client_program.py"
# LeRobot asks for an older torch, and for a torchvision that goes with it; the client works with this one.
TORCH = ["torch==2.13.0"]
ALONE = ["lerobot==0.4.4", "diffusers<0.36"]
OTHERS = [
    *("draccus==0.10.0", "grpcio==1.73.1", "protobuf==6.31.0", "huggingface-hub<0.36", "datasets<5"),
    *("transformers==4.57.1", "einops", "pyserial", "deepdiff", "opencv-python-headless<4.13", "av<16", "jsonlines"),
    *("gymnasium", "termcolor", "imageio", "accelerate", "setuptools<81"),
]


def test_robot_clients_execute_the_chunks_that_lerobot_itself_gives(tmp_path: Path) -> None:
    import_or_skip("torch")
    import_or_skip("grpc")
    python = tmp_path / "lerobot/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "lerobot"], check=True)
    for packages in (TORCH, ["--no-deps", *ALONE], OTHERS):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
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
