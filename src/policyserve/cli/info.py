"""`policyserve info`: what a report of a bug should say of the machine. Nothing that is asked for here is imported."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import policyserve
from policyserve.cli.extras import version_of
from policyserve.cli.terminal import take_no_arguments
from policyserve.core.printable import one_line

_PACKAGES = (
    "numpy", "msgpack", "tyro", "websockets", "h11", "threadpoolctl", "uvloop", "torch", "jax", "equinox",
    "tensorstore", "onnxruntime", "gymnasium", "matplotlib", "pillow", "safetensors", "tokenizers", "mcap", "rerun-sdk",
    "openpi-client", "wall-x", "vibe-rl",
)  # fmt: skip
_MODEL = Path("/proc/device-tree/model")  # what a board such as a Jetson calls itself
_CPUS = Path("/proc/cpuinfo")
_NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")


def main(argv: Sequence[str]) -> None:
    """Print what is known of this machine; exits with 0 after --help, with 2 for any other word."""
    take_no_arguments(argv, "policyserve info", "Versions, event loop and hardware, for reports of bugs.")
    print("\n".join(f"{name:14} {one_line(told)}" for name, told in _facts()))


def _facts() -> Iterator[tuple[str, str]]:
    yield "policyserve", f"{policyserve.__version__} in {Path(policyserve.__file__).parent}"
    yield "Python", f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    yield "system", platform.platform()
    yield "machine", ", ".join(filter(None, [_text(_MODEL), _cpu(), f"{_cores()} of {os.cpu_count()} cores"]))
    yield "GPU", "; ".join(_gpus()) or "none that nvidia-smi knows"
    yield "event loop", "uvloop" if version_of("uvloop") else "asyncio; pip install 'policyserve[fast]' brings uvloop"
    for package in _PACKAGES:
        yield package, version_of(package) or "not installed"


def _cores() -> int:
    """The cores that this process may use: a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    lines = _text(_CPUS).splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _gpus() -> list[str]:
    program = shutil.which(_NVIDIA[0])
    if program is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run([program, *_NVIDIA[1:]], capture_output=True, text=True, timeout=10, check=True).stdout
        return [", driver ".join(line.rsplit(", ", 1)) for line in told.splitlines()]
    return []


def _text(path: Path) -> str:
    with suppress(OSError, ValueError):
        return path.read_text(encoding="utf-8").strip("\0\n ")
    return ""
