#!/usr/bin/env python3
"""Run the tests that need Ray, in an environment of their own: small clusters on this machine, one after the other.

    python scripts/check_ray.py             # a selection: calm, a replica killed, a version rolled, commands
    python scripts/check_ray.py --drills    # all of tests/ray

The environment (0.6 GB on the disk) is made for it and removed after it, unless --environment names a folder that keeps
it; --drills makes those of the original clients (0.3 GB) besides, and skips the drill behind HAProxy where that is not
installed. A cluster of these tests has about 20 processes, which take some 2 GB of memory together, and 0.3 GB of
/dev/shm.
Ends with what pytest ends with.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("pytest", "pytest-timeout", "hypothesis")
SELECTION = "(calm or replica_is_killed or rolled or commands or application) and not originals"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the tests that need Ray.")
    parser.add_argument("--drills", action="store_true", help="all of them, some ten minutes")
    parser.add_argument("--environment", type=Path, help="a folder with a virtual environment, made if it is not there")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        python = environment(args.environment or Path(folder) / "venv")
        code = subprocess.run(command(python, args.drills), cwd=ROOT, env=surroundings(), check=False).returncode
    print(f"ray: {'passed' if code == 0 else f'ended with {code}'} after {time.monotonic() - began:.0f} s", flush=True)
    return code


def environment(folder: Path) -> Path:
    """The Python of an environment with policyserve, its extra and what the tests need."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        constraints = ["-c", ROOT / "constraints.txt"]
        subprocess.run([python, "-m", "pip", "install", "-q", *constraints, f"{ROOT}[ray]", *TOOLS], check=True)
    return python


def command(python: Path, is_all: bool) -> Sequence[str]:
    """What runs the tests."""
    chosen = [] if is_all else ["-k", SELECTION]
    return [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "ray", "tests/ray", *chosen]


def surroundings() -> dict[str, str]:
    """Ours, without what leads to another policyserve or another cluster than the tests' own."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "VIRTUAL_ENV"}
    return {**mine, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


if __name__ == "__main__":
    sys.exit(main())
