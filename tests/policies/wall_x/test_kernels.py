"""Triton's kernels in Triton's interpreter, which needs no GPU: the same numbers as the plain functions."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests.cli.serving import ROOT
from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")

from policyserve.policies.wall_x import fused  # noqa: E402

CPU = torch.device("cpu")
PLAIN = {
    "rms_norm": fused.plain_rms_norm,
    "add_rms_norm": fused.plain_add_rms_norm,
    "silu_mul": fused.plain_silu_mul,
    "silu_mul_both": fused.plain_silu_mul_both,
    "turn": fused.plain_turn,
    "turn_and_store": fused.plain_turn_and_store,
}
CASES = "tests/policies/wall_x/interpreted_kernels.py"


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed; CUDA's torch brings it along")
def test_every_kernel_gives_what_the_plain_function_gives() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", CASES]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_kernels_that_give_torchs_numbers_are_used() -> None:
    assert fused.adopt_kernels(CPU, PLAIN) is None


def test_a_kernel_that_gives_other_numbers_is_not_used() -> None:
    wrong = {**PLAIN, "silu_mul": lambda gate_up: fused.plain_silu_mul(gate_up) * 1.1}
    assert fused.adopt_kernels(CPU, wrong) == "other numbers than torch's from silu_mul"


def test_a_kernel_that_stores_nothing_is_not_used() -> None:
    def turned_alone(qkv: Any, cos: Any, sin: Any, keys: Any, values: Any, start: int, slots: Any) -> Any:
        return fused.plain_turn_and_store(qkv, cos, sin, keys.clone(), values.clone(), start, slots)

    assert fused.adopt_kernels(CPU, {**PLAIN, "turn_and_store": turned_alone}) is not None


def test_kernels_that_cannot_be_compiled_are_told_in_one_line() -> None:
    def fails(*_arguments: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    assert fused.adopt_kernels(CPU, {**PLAIN, "turn": fails}) == "RuntimeError: Failed to find C compiler."
