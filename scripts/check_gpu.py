#!/usr/bin/env python3
"""Check Wall-X on this machine's GPU, step after step: whether it is right, how fast it is, whether it serves.

    make gpu                                    # on a machine with an NVIDIA GPU; some 25 minutes
    python scripts/check_gpu.py --from B1       # go on there

The first wrong result ends it with 1, since what comes after would mean nothing: after a wrong number, no time counts.
Every step's output is kept in --folder, with the figures as JSON. Nothing is installed, and one GPU is used. The golden
cases lie in ../shared/wall_x/golden, as for the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT.parent / "shared" / "wall_x" / "golden"
TESTS = "tests/policies/wall_x"
_PYTEST = ("python", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
_ON_GPU = ("--device", "cuda", "--dtype", "bfloat16")
_BENCHMARK = ("python", "benchmarks/wall_x.py", "--checkpoint", "{folder}/checkpoint", *_ON_GPU)
_MAX_RESERVED, _MAX_FIRST_CALL_S = 12e9, 0.05
_READING = 1.15  # how much faster memory may be read than the benchmark copies it, which limits come from

# (what the step printed, the folder of results) -> what is wrong with it; None: nothing.
Judge = Callable[[str, Path], "str | None"]
# (the command, what it adds to the environment, where its output goes) -> its exit status
Run = Callable[[Sequence[str], Mapping[str, str], Path], int]


def passes(_output: str, _folder: Path) -> str | None:
    """A step whose exit status says it all."""
    return None


@dataclass(frozen=True)
class Step:
    """One command, and what must be true of what it printed and wrote. {folder}, {golden}: filled in.

    look_closer: run where the step was wrong, for what it prints. only_with: a program without which it is left out.
    """

    name: str
    what: str
    command: Sequence[str]
    judge: Judge = passes
    environment: Mapping[str, str] = field(default_factory=dict)
    look_closer: Sequence[str] = ()
    only_with: str | None = None


def ran_on_gpu(output: str, _folder: Path) -> str | None:
    """Tests on the GPU: some passed, none was skipped, and no graph was missing or empty."""
    for words in ("no CUDA graph", "CUDA Graph is empty"):
        if words in output:
            return f"it says {words!r}"
    last = output.strip().splitlines()[-1] if output.strip() else "nothing"
    if " passed" not in last or " skipped" in last:
        return f"expected tests that pass and none that is skipped, got {last}"
    return None


def fast_enough(name: str) -> Judge:
    """The benchmark's results: memory within bounds, graphs at least twice as fast as launching anew."""

    def judge(_output: str, folder: Path) -> str | None:
        report: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        reserved = report["gpu"]["peak_reserved_bytes"]
        if reserved > _MAX_RESERVED:
            return f"{reserved / 1e9:.1f} GB of the GPU reserved, expected at most {_MAX_RESERVED / 1e9:.0f}"
        times = {row["stage"]: row["seconds"] for row in report["stages"] if row["batch"] == 1}
        graph, eager = times.get("ten flow steps", 0.0), times.get("ten, no graph")
        if eager is not None and graph > eager / 2:
            return f"ten steps take {graph * 1e3:.1f} ms in a graph, {eager * 1e3:.1f} without: expected half of it"
        over = [row["stage"] for row in report["stages"] if row["limit_s"] > _READING * row["seconds"]]
        if over:
            return f"faster than this device can be: {', '.join(over)}; is the device shared?"
        return None

    return judge


def no_stalls(_output: str, folder: Path) -> str | None:
    """First calls of new shapes, against their second calls."""
    calls = json.loads((folder / "first_calls.json").read_text(encoding="utf-8"))["first_calls"]
    slow = [call for call in calls if call["first_s"] - call["second_s"] > _MAX_FIRST_CALL_S]
    for call in slow:
        more = (call["first_s"] - call["second_s"]) * 1e3
        return f"the first call of {call['shape']} takes {more:.0f} ms more, expected {_MAX_FIRST_CALL_S * 1e3:.0f}"
    return None


_VERSIONS = "import torch; print(torch.__version__, torch.backends.cudnn.version(), torch.cuda.get_device_name())"
_SANITIZED = f"{TESTS}/test_on_gpu.py::test_a_golden_case_is_the_originals_on_the_gpu"
_CAUSAL = "--attention causal --eager --batches 1,4,8 --compare 300,900 --rounds 30 --json {folder}/causal.json"
_UPSTREAM = "--attention upstream_sdpa --batches 1,8 --compare= --rounds 30 --json {folder}/upstream.json"
_KERNELS = "--batches= --compare= --first-calls --profile {folder}/trace.json --json {folder}/first_calls.json"

STEPS: Sequence[Step] = (
    Step("A1", "the GPU, the driver and torch", ("nvidia-smi",)),
    Step("A2", "torch sees the GPU", ("python", "-c", _VERSIONS)),
    Step("A3", "all tests of Wall-X on the CPU", (*_PYTEST, "-m", "not gpu and not interop", TESTS)),
    Step(
        "A4",
        "golden cases, graphs and batches on the GPU",
        (*_PYTEST, "-m", "gpu", TESTS),
        ran_on_gpu,
        look_closer=("env", "CUDA_LAUNCH_BLOCKING=1", *_PYTEST, "-m", "gpu", TESTS),
    ),
    Step(
        "A5",
        "the same without cuDNN's attention",
        (*_PYTEST, "-m", "gpu", TESTS),
        ran_on_gpu,
        {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"},
    ),
    Step(
        "A6",
        "one golden case, every access of memory checked",
        ("compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "1", *_PYTEST, "-m", "gpu", _SANITIZED),
        only_with="compute-sanitizer",
    ),
    Step(
        "B1",
        "stages and comparison, causal",
        (*_BENCHMARK, "--size", "real", *_CAUSAL.split()),
        fast_enough("causal.json"),
    ),
    Step(
        "B2",
        "stages of the default convention",
        (*_BENCHMARK, *_UPSTREAM.split()),
        fast_enough("upstream.json"),
    ),
    Step(
        "B3",
        "which kernels a request runs, and first calls of new shapes",
        (*_BENCHMARK, *_KERNELS.split()),
        no_stalls,
    ),
    Step("C1", "a server under load", ("python", "scripts/serve_on_gpu.py", "--golden", "{golden}")),
    Step("C2", "what is left on the GPU", ("nvidia-smi",)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", choices=names, default=names[0], dest="first", help="leave out what stands before it")
    parser.add_argument("--folder", type=Path, default=ROOT / ".gpu", help="for outputs, figures and the checkpoint")
    options = parser.parse_args(arguments)
    missing = what_is_missing()
    if missing:
        print(f"check_gpu: {missing}", file=sys.stderr)
        return 1
    options.folder.mkdir(parents=True, exist_ok=True)
    return run_steps(STEPS[names.index(options.first) :], options.folder, run_here)


def what_is_missing(golden: Path = GOLDEN) -> str | None:
    """What this machine lacks, with the cure, in one line."""
    try:
        import torch
    except ImportError:
        return "expected torch with CUDA, found no torch; pip install '.[wall-x]' on a machine with a GPU"
    if not torch.cuda.is_available():
        kind = "a torch without CUDA" if torch.version.cuda is None else "no GPU that torch can use"
        return f"expected an NVIDIA GPU, found {kind}; run this on a machine with a GPU (nvidia-smi lists it)"
    return None if golden.is_dir() else f"expected the golden cases in {golden}, found no such folder"


def run_steps(steps: Sequence[Step], folder: Path, run: Run) -> int:
    """Run the steps in order; the first that is wrong is told and ends it. Returns an exit status."""
    for step in steps:
        if step.only_with and shutil.which(step.only_with) is None:
            print(f"{step.name} left out: {step.only_with} is not installed")
            continue
        print(f"{step.name} {step.what}", flush=True)
        wrong = _wrong_of(step, folder, run)
        if wrong is None:
            continue
        print(f"{step.name} is WRONG: {wrong}; see {folder / step.name}.txt", file=sys.stderr)
        if step.look_closer:
            run(_filled(step.look_closer, folder), step.environment, folder / f"{step.name}_closer.txt")
            print(f"looked closer: {folder / step.name}_closer.txt", file=sys.stderr)
        return 1
    print("all right")
    return 0


def _wrong_of(step: Step, folder: Path, run: Run) -> str | None:
    output = folder / f"{step.name}.txt"
    status = run(_filled(step.command, folder), step.environment, output)
    if status != 0:
        return f"it ended with {status}"
    return step.judge(output.read_text(encoding="utf-8", errors="replace"), folder)


def _filled(command: Sequence[str], folder: Path) -> list[str]:
    places = {"{folder}": str(folder), "{golden}": str(GOLDEN)}
    words = [sys.executable if word == "python" else word for word in command]
    for place, value in places.items():
        words = [word.replace(place, value) for word in words]
    return words


def run_here(command: Sequence[str], environment: Mapping[str, str], output: Path) -> int:
    """Run a command in the checkout; what it prints is shown and kept."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    variables = {**os.environ, "PYTHONPATH": path, **environment}
    try:
        process = subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except OSError as error:
        output.write_text(f"{command[0]}: {error}\n", encoding="utf-8")
        return 127
    with process, output.open("w", encoding="utf-8") as kept:
        for line in process.stdout or ():
            print(f"    {line}", end="")
            kept.write(line)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
