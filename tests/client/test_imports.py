"""A robot's computer loads what a client needs, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import policyserve
policyserve.{name}
heavy = {{"tyro", "jax", "jaxlib", "equinox", "torch", "h11", "threadpoolctl", "gymnasium", "tensorstore", "ray"}}
heavy |= {{"policyserve." + room for room in ("server", "engine", "cli", "policies")}}
print(sorted(heavy & sys.modules.keys()))
"""


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "RealtimeClient", "AsyncRealtimeClient", "Realtime"])
def test_importing_a_client_loads_no_server_and_no_framework(name: str) -> None:
    program = [sys.executable, "-c", PROGRAM.format(name=name)]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout == "[]\n"
