"""What the founding documents' code finds around it: checkpoints, servers, programs that run it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from policyserve.compat.vibe_rl import PRESETS, PolicyServer, create_trained_policy
from policyserve.compat.wall_x import MODEL_CONFIGS, WallXPolicy, WebsocketPolicyServer
from policyserve.policies.fakes import demo_image
from tests.cli.serving import ROOT
from tests.compat.running import running
from tests.shared import shared_path

LOOPBACK = {"host": "127.0.0.1", "port": 0}


def lay_out(place: Path) -> None:
    """Make `place` the directory in which the documents' commands are typed."""
    for name in ("scripts", "examples"):
        (place / name).symlink_to(ROOT / name)
    for robot, golden in (("cartpole", "cartpole_ppo"), ("pendulum", "pendulum_sac")):
        shutil.copytree(shared_path("vibe_rl", "golden", golden, "checkpoints"), place / "runs" / robot / "checkpoints")
    stats = shared_path("vibe_rl", "golden", "pendulum_sac_norm", "norm_stats.json")
    shutil.copy(stats, place / "runs" / "pendulum" / "norm_stats.json")


@contextmanager
def served(name: str) -> Iterator[str]:
    """A server of one of the policies that the documents talk about; gives its URL."""
    with running(_server(name)) as url:
        yield url


def _server(name: str) -> PolicyServer | WebsocketPolicyServer:
    if name == "libero":
        libero = MODEL_CONFIGS[name]
        policy = WallXPolicy("stand-in", "", "", 7, 8, 32, libero.camera_key)
        return WebsocketPolicyServer(policy, **LOOPBACK, metadata={"env": name})
    if name == "image":
        return PolicyServer(demo_image(), **LOOPBACK)
    golden = {"cartpole": "cartpole_ppo", "pendulum": "pendulum_sac"}[name]
    checkpoints = shared_path("vibe_rl", "golden", golden, "checkpoints")
    return PolicyServer(create_trained_policy(PRESETS[golden].config, checkpoints), **LOOPBACK)


def drop_in() -> Mapping[str, str]:
    """The environment of a program where the drop-in is installed."""
    paths = [str(ROOT / "drop-in" / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_program(code: str, place: Path) -> str:
    """Run Python code in a process of its own and return what it prints."""
    ended = subprocess.run(_python(code), cwd=place, env=drop_in(), text=True, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@contextmanager
def running_program(code: str, place: Path) -> Iterator[str]:
    """Run Python code that serves; gives the server's URL, and interrupts it at the end as a person would."""
    process = subprocess.Popen(
        _python(code), cwd=place, env=drop_in(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline()
        assert port, process.communicate()[1]
        yield f"ws://127.0.0.1:{int(port)}"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0, stderr
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _python(code: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("program.py")), code]
