#!/usr/bin/env python3
"""Run the quick suites on other Pythons, as `pip install policyserve` leaves it: no extras, no uvloop, no frameworks.

    python scripts/check_pythons.py                   # Python 3.10, 3.12, 3.13 and the oldest dependencies
    python scripts/check_pythons.py --job 3.13 oldest

Each job has a virtual environment of its own, made for it and removed after it. Two run at the same time (--at-once),
since tests wait for each other more than they compute; what a job says is printed when it has ended. A Python that this
machine lacks is named and left out; the job `oldest` installs the lower bound of each dependency in pyproject.toml, on
the oldest Python that is here. Ends with 1 if a job failed, and under CI=true if none ran.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
USUAL = ("3.10", "3.12", "3.13")  # if no job is named
OLDEST = "oldest"
FOR_OLDEST = ("3.10", "3.11", "3.12")  # NumPy 1.26 has no wheels for newer ones
TOOLS = ("pytest", "pytest-timeout", "hypothesis")

# What asks most of a Python: bytes, sockets, loops, threads, processes. Frameworks, commands and documents are left to
# `make test`, and so are the soak and the scene of real-time execution, minutes of arithmetic.
SUITES = (
    "core", "dialects", "websocket", "transforms", "client", "engine", "server", "contract", "golden", "fuzz",
    "observe", "policies", "realtime", "test_background.py", "test_safety.py",
)  # fmt: skip
LEFT_OUT = ("server/test_soak.py", "policies/wall_x", "realtime/test_scene.py")


@dataclass(frozen=True)
class Job:
    """One interpreter, and what `pip` must not go beyond."""

    name: str
    python: str
    constraints: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the quick suites on other Pythons.")
    parser.add_argument("--job", nargs="+", choices=(*PYTHONS, OLDEST), default=(*USUAL, OLDEST), dest="names")
    parser.add_argument("--at-once", type=int, default=2, help="how many run at the same time")
    args = parser.parse_args()
    jobs = list(find_jobs(args.names))
    with ThreadPoolExecutor(args.at_once) as pool:
        results = dict(zip([job.name for job in jobs], pool.map(_passes, jobs), strict=True))
    print("\n".join(f"python {name}: {'passed' if passed else 'FAILED'}" for name, passed in results.items()))
    is_enough = results or os.environ.get("CI") != "true"
    return 0 if is_enough and all(results.values()) else 1


def find_jobs(names: list[str]) -> Iterator[Job]:
    """The jobs whose Python is here; says which are not."""
    for name in names:
        versions = FOR_OLDEST if name == OLDEST else (name,)
        python = next(filter(None, map(find_python, versions)), None)
        if python is None:
            print(f"python {name}: left out, there is no Python {' or '.join(versions)} here", flush=True)
        else:
            yield Job(name, python, oldest_dependencies() if name == OLDEST else "")


def find_python(version: str) -> str | None:
    """An interpreter of this version that runs: on the path, or one of pyenv's."""
    folders = (path for root in _pyenv_roots(version) for path in sorted(root.glob(f"versions/{version}.*/bin/python")))
    candidates = [f"python{version}", *map(str, folders)]
    return next((candidate for candidate in candidates if _is_python(candidate, version)), None)


def _pyenv_roots(version: str) -> Iterator[Path]:
    """Where pyenv keeps its Pythons: the folder it was told, the usual one, or the one its shim on the path is in."""
    if "PYENV_ROOT" in os.environ:
        yield Path(os.environ["PYENV_ROOT"])
    else:
        yield Path.home() / ".pyenv"
        shim = shutil.which(f"python{version}")
        if shim and Path(shim).parent.name == "shims":
            yield Path(shim).parents[1]


def _is_python(command: str, version: str) -> bool:
    asks = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([command, "-c", asks], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version  # pyenv's shims answer nothing for a version that is not switched on


def oldest_dependencies() -> str:
    """The lower bounds of pyproject.toml's dependencies as pip's constraints, one a line; tools and extras are free."""
    dependencies = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("\n]")[0]
    return "".join(f"{name}=={bound}\n" for name, bound in re.findall(r'"([\w-]+)>=([\d.]+)', dependencies))


def _passes(job: Job) -> bool:
    """Install and run the suites; says how that ended, how long it took, and what was printed."""
    began = time.monotonic()
    ended = "passed"
    with tempfile.TemporaryDirectory() as name, (folder := Path(name)).joinpath("log").open("w+") as log:
        try:
            _run_suites(_install(job, folder, log), log)
        except subprocess.CalledProcessError as error:
            ended = f"ended with {error.returncode}: {shlex.join(map(str, error.cmd))}"
        log.seek(0)
        told = log.read()
    print(f"{told}python {job.name} ({job.python}): {ended} after {time.monotonic() - began:.0f} s", flush=True)
    return ended == "passed"


def _install(job: Job, folder: Path, log: IO[str]) -> Path:
    """Make a virtual environment with policyserve and what its tests need; returns its Python."""
    _run([job.python, "-m", "venv", folder / "venv"], log)
    constraints = folder / "constraints.txt"
    constraints.write_text(job.constraints)
    python = folder / "venv" / "bin" / "python"
    _run([python, "-m", "pip", "install", "-q", "-c", constraints, ".", *TOOLS], log)
    return python


def _run_suites(python: Path, log: IO[str]) -> None:
    ours = [f"tests/{suite}" for suite in SUITES]
    others = [f"--ignore=tests/{suite}" for suite in LEFT_OUT]
    _run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ours, *others], log)


def _run(command: Sequence[str | Path], log: IO[str]) -> None:
    subprocess.run(command, cwd=ROOT, env=_environment(), stdout=log, stderr=subprocess.STDOUT, check=True)


def _environment() -> dict[str, str]:
    """Ours, without what would have the tests find another policyserve than the one that was installed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "_POLICYSERVE_TEST_BARE": "1"}


if __name__ == "__main__":
    sys.exit(main())
