"""Environments of the original clients, with a client's packages and nothing of ours; each is made once in a run."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_POSITRONIC = ["positronic-wire[websocket]==0.12.0", "positronic-model-server==0.3.1"]
_ZMQ = ["pyzmq", "msgpack", "numpy"]
# What the parts of LeRobot import that its RobotClient imports, in versions that go together.
_WITH_LEROBOT = [
    *("draccus==0.10.0", "grpcio==1.73.1", "protobuf==6.31.0", "huggingface-hub<0.36", "datasets<5"),
    *("transformers==4.57.1", "einops", "pyserial", "deepdiff", "opencv-python-headless<4.13", "av<16", "jsonlines"),
    *("gymnasium", "termcolor", "imageio", "accelerate", "setuptools<81"),
]

# What pip installs, in steps: --no-deps where a client asks for robots and simulators, which nothing here imports.
STEPS: Mapping[str, Sequence[Sequence[str]]] = {
    # It pins numpy<2 and forgets to ask for typing_extensions.
    "openpi": (("openpi-client==0.1.2", "typing_extensions"),),
    "wall_x": (("msgpack-numpy==0.4.8", "websockets", "numpy"),),
    "vibe_rl": (("msgpack", "websockets", "numpy"),),
    "vla_eval": (
        ("vla-eval==0.8.0", "websockets", "msgpack", "msgpack-numpy==0.4.8"),
        ("--no-deps", "inspect-robots==0.60.0", "inspect-robots-xpolicylab==0.1.0"),
    ),
    "roboarena": (
        (*_POSITRONIC, "opentelemetry-api", "pydantic", "pos3", "pyyaml"),
        ("--no-deps", "positronic==0.4.1", "positronic-eval-vocabulary==0.6.0"),
    ),
    "molmospaces": (("msgpack-numpy==0.4.8", "websockets", "numpy"), ("--no-deps", "molmo-spaces==0.2.9")),
    "rest": (
        ("numpy", "requests", "json-numpy==2.1.1", "pillow"),
        ("--no-deps", "inspect-robots==0.60.0", "inspect-robots-widowx==0.1.0", "inspect-robots-yam==0.37.0"),
    ),
    "gr00t_n15": (_ZMQ, ("--no-deps", "strands-robots==0.3.8")),
    "gr00t_n16": (_ZMQ,),
    "gr00t_n17": (
        (*_ZMQ, "msgpack-numpy==0.4.8"),
        ("--no-deps", "inspect-robots==0.60.0", "inspect-robots-unitree-g1==0.1.1"),
    ),
    # LeRobot asks for an older torch, and for a torchvision that goes with it; the client works with this one.
    "lerobot": (("torch==2.13.0",), ("--no-deps", "lerobot==0.4.4", "diffusers<0.36"), _WITH_LEROBOT),
}
_N16 = "strands-robots==0.5.2"  # it wants Python 3.12 and runs on older ones, too; later ones have no wheel


class Environments:
    """Those that were asked for, in a folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._made: dict[str, str] = {}

    def python(self, name: str) -> str:
        """The interpreter of one of STEPS, whose environment is made when it is asked for first."""
        if name not in self._made:
            folder = self._home / name
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            found = str(folder / "bin" / "python")
            for packages in STEPS[name]:
                subprocess.run([found, "-m", "pip", "install", "--quiet", *packages], check=True)
            self._made[name] = found
        return self._made[name]

    def n16_wheel(self) -> str:
        """The folder with clients of GR00T N1.6 and of Cosmos 3, which is unpacked and not installed."""
        folder = self._home / "wheel"
        if not folder.exists():
            options = ["--no-deps", "--python-version", "3.12", "--only-binary=:all:", "--dest", str(self._home)]
            subprocess.run([sys.executable, "-m", "pip", "--quiet", "download", *options, _N16], check=True)
            (wheel,) = self._home.glob("strands_robots-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        return str(folder)
