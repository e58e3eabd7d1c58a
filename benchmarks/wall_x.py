"""Measure a Wall-X network: every stage against this device's own rates, and against recomputing.

    python benchmarks/wall_x.py [--size tiny|mid|real] [--device cpu|cuda] [--dtype float32|bfloat16]
                                [--attention causal] [--batches 1,2,4,8] [--compare 300,600,900] [--json FILE]
                                [--checkpoint DIR] [--first-calls] [--profile TRACE] [--rtc 1,4]

The weights are random ones, written as a checkpoint directory and loaded as a user's would be (`real`: 8.4 GB there,
and as much memory): in DIR, which is kept and used again by the next run, else in a temporary folder. limit: the longer
of the times that a stage's bytes and FLOPs, counted from the network's sizes, need at the copy bandwidth and the matrix
rate measured here; of a whole request, the sum of its stages' limits. of limit: how much of the time that is.

Everything is timed as the model runs it: on a GPU in CUDA graphs, on a CPU call by call. Against recompute: text prefix
without images, 32 actions, ten steps, batch 1; cached with its prefill, recompute with its prefix already embedded; the
median of the ratios of interleaved runs. LeRobot's own port, which recomputes too, is not run: its package asks for an
older torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from wall_x_models.checkpoints import load
from wall_x_models.comparing import compare
from wall_x_models.first_calls import measure_first_calls
from wall_x_models.guided import measure_guided, print_guided
from wall_x_models.profiling import profile_requests, told_profile
from wall_x_models.random_checkpoint import SIZES
from wall_x_models.stages import Row, measure_stages
from wall_x_models.tables import print_comparison, print_first_calls, print_stages
from wall_x_models.timing import gpu_memory, measure_rates, peak_bytes

from policyserve.core.errors import ConfigError
from policyserve.policies.wall_x.attention import ATTENTION_MODES
from policyserve.policies.wall_x.model import WallXModel
from policyserve.policies.wall_x.placement import running_on


def main() -> int:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
            report = measure(options, options.checkpoint or Path(temporary) / "checkpoint")
    except ConfigError as error:
        print(f"wall_x.py: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Load, measure, print; returns all results."""
    model, facts = load(options.size, options.device, options.dtype, folder)
    with running_on(model.network.device):
        return measure_loaded(model, facts, options)


def measure_loaded(model: WallXModel, facts: dict[str, float], options: argparse.Namespace) -> dict[str, Any]:
    place = model.network.device
    rates = measure_rates(place, model.network.dtype)
    device = torch.cuda.get_device_name(place) if place.type == "cuda" else f"{options.threads} CPU threads"
    print(f"{facts['parameters'] / 1e6:.1f} M parameters, {options.dtype}, {options.attention}, {device}")
    print(f"copy {rates.bandwidth / 1e9:.1f} GB/s, matmul {rates.matmul / 1e9:.0f} GFLOP/s\n")
    rows: list[Row] = []
    for batch in options.batches:
        rows += measure_stages(model, rates, batch, options.attention, options.rounds, eager=options.eager)
    if rows:
        print_stages(rows)
    results = [compare(model, prefix, options.attention, options.rounds) for prefix in options.compare]
    if results:
        print()
        print_comparison(results)
    calls = measure_first_calls(model, options.attention) if options.first_calls else []
    if calls:
        print()
        print_first_calls(calls)
    guided = [one for batch in options.rtc for one in measure_guided(model, batch, options.attention, options.rounds)]
    if guided:
        print()
        print_guided(guided)
    profile = profile_requests(model, options.attention, options.profile) if options.profile else {}
    for line in told_profile(profile):
        print(line)
    facts["peak_bytes"] = peak_bytes()
    memory = gpu_memory(place)
    print_memory(facts, memory)
    report = {"attention": options.attention, "dtype": options.dtype, "device": device, "torch": torch.__version__}
    report.update(rates=asdict(rates), facts=facts, gpu=memory, compare=results, profile=profile)
    report.update(first_calls=[asdict(call) for call in calls], rtc=[asdict(one) for one in guided])
    return {**report, "architecture": asdict(model.architecture), "stages": [asdict(row) for row in rows]}


def print_memory(facts: dict[str, float], memory: dict[str, int]) -> None:
    loaded = f"loaded {facts['weight_bytes'] / 1e9:.2f} GB in {facts['load_s']:.1f} s"
    peaks = f"{facts['loaded_peak_bytes'] / 1e9:.2f} GB until then, {facts['peak_bytes'] / 1e9:.2f} GB in all"
    print(f"\n{loaded}, peak memory {peaks}", file=sys.stderr)
    if memory:
        peak, used, total = (memory[name] / 1e9 for name in ("peak_reserved_bytes", "used_bytes", "total_bytes"))
        print(f"GPU memory: {peak:.2f} GB reserved at most; {used:.2f} of {total:.2f} GB in use", file=sys.stderr)


def counts(text: str) -> Sequence[int]:
    """Read numbers that commas part."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"expected numbers of 1 or more, as in 1,4,8, got {text}")
    return [int(part) for part in parts]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, help="of random weights (default: mid)")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="measure this one; written if it is not there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--attention", choices=ATTENTION_MODES, default="causal")
    parser.add_argument("--batches", type=counts, default="1,2,4,8", help="empty: no stages")
    parser.add_argument("--compare", type=counts, default="300,600,900", help="prefixes of the comparison; empty: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="on a GPU, time ten steps without a graph as well")
    parser.add_argument("--first-calls", action="store_true", help="time the first request of shapes that are new")
    parser.add_argument("--rtc", type=counts, default="", help="batches of steps that agree with known rows")
    parser.add_argument("--profile", type=Path, metavar="TRACE", help="profile five requests, for Chrome")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write all results there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
