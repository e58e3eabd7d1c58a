"""`policyserve info`: what a report of a bug says of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import policyserve
from policyserve.cli import info
from tests.cli.terminals import run_in


def facts() -> dict[str, str]:
    said = run_in("pipe", ["info"])
    assert (said.code, said.err) == (0, "")
    return {line[:14].strip(): line[15:] for line in said.out.splitlines()}


def test_it_names_versions_of_what_is_installed_and_of_what_is_not() -> None:
    told = facts()
    assert told["policyserve"].startswith(policyserve.__version__)
    assert told["Python"].endswith(sys.executable)
    assert told["numpy"] == np.__version__
    assert told["wall-x"] == "not installed"
    assert {"system", "machine", "event loop", "tyro", "websockets", "torch", "jax", "openpi-client"} <= told.keys()


def test_the_gpu_is_what_nvidias_own_program_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 570.10'\necho odd\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert facts()["GPU"] == "NVIDIA H200, 143771 MiB, driver 570.10; odd"
    program.write_text("#!/bin/sh\necho 'Failed to initialize NVML'\nexit 9\n")
    assert facts()["GPU"] == "none that nvidia-smi knows"
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts()["GPU"] == "none that nvidia-smi knows"


def test_a_board_and_a_processor_are_named_where_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_text("NVIDIA Jetson AGX Orin\0")
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name : ARMv8\n")
    monkeypatch.setattr(info, "_MODEL", tmp_path / "model")
    monkeypatch.setattr(info, "_CPUS", tmp_path / "cpuinfo")
    assert facts()["machine"].startswith("NVIDIA Jetson AGX Orin, ARMv8, ")
    monkeypatch.setattr(info, "_MODEL", tmp_path / "nowhere")
    monkeypatch.setattr(info, "_CPUS", tmp_path / "nowhere")
    assert facts()["machine"].endswith(" cores")


def test_nothing_that_it_tells_of_is_imported_for_it() -> None:
    program = (
        "import sys\nfrom policyserve.cli import main\nmain(['info'])\n"
        "print(sorted({'numpy', 'tyro', 'torch', 'jax', 'websockets'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_m_policyserve_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "policyserve", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"policyserve {policyserve.__version__}\n"
