"""GR00T's clients of three versions, which nobody here wrote, unmodified, all at once against one policy."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, FunctionPolicy, PolicyServer, PolicySpec, ServerConfig

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parent / "programs"
ZMQ = ["pyzmq", "msgpack", "numpy"]
# The first packages without what they ask for, which is not needed to ask for actions.
PACKAGES: dict[str, tuple[list[str], list[str]]] = {
    "n15": (["strands-robots==0.3.8"], ZMQ),
    "n16": ([], ZMQ),
    "n17": (["inspect-robots==0.60.0", "inspect-robots-unitree-g1==0.1.1"], [*ZMQ, "msgpack-numpy==0.4.8"]),
}
WHEEL = "strands-robots==0.5.2"  # of N1.6's client; later ones have none
GROUPS = {"left_arm": 7, "right_arm": 7, "left_hand": 1, "right_hand": 1}
SPEC = PolicySpec("g1", None, ArraySpec((16,)), horizon=4, metadata={"modality": GROUPS})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment for each version, with its client and nothing of ours; N1.6's client unpacked in `wheel`."""
    home = tmp_path_factory.mktemp("gr00t")
    for name, (alone, packages) in PACKAGES.items():
        subprocess.run([sys.executable, "-m", "venv", home / name], check=True)
        pip = [home / name / "bin" / "python", "-m", "pip", "--quiet"]
        subprocess.run([*pip, "install", *packages], check=True)
        if alone:
            subprocess.run([*pip, "install", "--no-deps", *alone], check=True)
    options = ["--no-deps", "--python-version", "3.12", "--only-binary=:all:", "--dest", home]
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "download", *options, WHEEL], check=True)
    (wheel,) = home.glob("strands_robots-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home / "wheel")
    return home


async def run_clients(home: Path, count: int) -> list[str]:
    """Serve one policy and run every client at once; gives what each printed, or how it failed."""

    def act(seen: Any) -> Any:
        return np.full((4, 16), seen["state"]["left_arm"][0], np.float32)

    async with PolicyServer(
        FunctionPolicy(act, SPEC), config=ServerConfig(host="127.0.0.1", port=0, gr00t=0)
    ) as server:
        assert server.gr00t is not None
        port = server.gr00t.port

        async def run(name: str, salt: int) -> str:
            arguments = [str(port), str(count), str(salt), *([str(home / "wheel")] if name == "n16" else [])]
            program = [str(home / name / "bin" / "python"), str(PROGRAMS / f"gr00t_{name}_program.py"), *arguments]
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*program, stdout=pipe, stderr=pipe)
            out, err = await process.communicate()
            return out.decode().strip() or err.decode()

        return await asyncio.gather(*(run(name, salt) for salt, name in enumerate(PACKAGES, start=1)))


def test_clients_of_three_versions_get_two_hundred_right_answers_each_at_once(home: Path) -> None:
    assert asyncio.run(run_clients(home, 200)) == ["200 right answers"] * 3
