"""Measure a Wall-X network of random weights: every stage against this device's own rates, and against recomputing.

    python benchmarks/wall_x.py [--size tiny|mid|real] [--device cpu|cuda] [--dtype float32|bfloat16]
                                [--attention causal] [--batches 1,2,4,8] [--compare 300,600,900] [--json FILE]

The weights are written as a checkpoint directory into a temporary folder and loaded as a user's would be (`real`: 8.4
GB there, and as much memory). limit: the longer of the times that a stage's bytes and FLOPs need at the copy bandwidth
and the matrix rate measured here; of limit: how much of the time that is. bytes: weights and cache that a stage must
read; FLOPs: counted by torch, causal attention as if it were full.

Against recompute: text prefix without images, 32 actions, ten steps, batch 1; the same weights and noise; cached with
its prefill, recompute with its prefix already embedded; the median of the ratios of interleaved runs.
LeRobot's own port, which recomputes too, is not run: its package asks for an older torch.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from wall_x_models.random_checkpoint import SIZES, random_config, write_random_checkpoint
from wall_x_models.recompute import FullSampler

from policyserve.policies.wall_x.attention import ATTENTION_MODES, AttentionMode
from policyserve.policies.wall_x.capture import CudaCapture
from policyserve.policies.wall_x.flow import FlowSampler
from policyserve.policies.wall_x.generate import DecodeState, Generator
from policyserve.policies.wall_x.graphs import Graphs
from policyserve.policies.wall_x.images import image_patches, read_image, resize_image
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.model import WallXModel, load_model
from policyserve.policies.wall_x.network import Network

ACTIONS, STEPS, CAMERA, TEXT = 32, 10, (18, 18), 75  # two cameras of 252 × 252 and 75 tokens of text: LIBERO
GOALS = {300: 5.5, 600: 7.0, 900: 7.5}
_CELLS = CAMERA[0] * CAMERA[1] // 4


@dataclass(frozen=True)
class Rates:
    """What this device does at best: bytes and FLOPs per second."""

    bandwidth: float
    matmul: float


@dataclass(frozen=True)
class Row:
    """One stage at one batch size. limit_s: see the module's head."""

    stage: str
    batch: int
    seconds: float
    gigabytes: float
    gigaflops: float
    limit_s: float
    note: str = ""


def make_input(
    model: WallXModel, text: int, *, cameras: int = 0, actions: int = ACTIONS, trailing: int = 0, seed: int = 0
) -> ModelInput:
    """An observation of random numbers. text: tokens of the prefix besides the images'; trailing: after the actions."""
    a, random = model.architecture, np.random.default_rng(seed)
    special = {a.image_id, a.action_id, a.state_id, a.eos_id}
    allowed = np.array([i for i in range(model.network.decoder.embed_tokens.shape[0]) if i not in special])
    words = random.choice(allowed, text - 1)
    ids = [*words[: text // 2], *[a.image_id] * (cameras * _CELLS), *words[text // 2 :], a.state_id]
    return ModelInput(
        input_ids=np.array([*ids, *[a.action_id] * actions, *words[:trailing]], dtype=np.int64),
        patches=random.standard_normal((cameras * _CELLS * 4, 1176), dtype=np.float32),
        grids=(CAMERA,) * cameras,
        state=random.standard_normal(a.state_dim, dtype=np.float32),
        state_mask=np.ones(a.state_dim, np.float32),
        dof_mask=np.ones((actions, a.action_dim), np.float32),
        noise=random.standard_normal((actions, a.action_dim), dtype=np.float32),
        dataset="",
    )


def seconds_of(function: Callable[[], Any], rounds: int) -> float:
    """The median of some runs after a first one, waiting for the device."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Copy a large tensor, multiply large matrices: the best of some runs."""
    is_gpu = device.type == "cuda"
    block = torch.ones((1 << 30 if is_gpu else 1 << 28) // 4, device=device)
    target = torch.empty_like(block)
    size = 8192 if is_gpu else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    copy = min(seconds_of(lambda: target.copy_(block), 1) for _ in range(10))
    product = min(seconds_of(lambda: left @ right, 1) for _ in range(10))
    return Rates(2 * block.nbytes / copy, 2 * size**3 / product)


def count_flops(function: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())


def weight_bytes(network: Network, *experts: int) -> int:
    """The decoder's layers with these experts, without the embedding."""

    def size(module: nn.Module) -> int:
        return sum(parameter.nbytes for parameter in module.parameters())

    idle = [expert for expert in (0, 1) if expert not in experts]
    return size(network.decoder.layers) - sum(
        size(layer.mlp.of[expert])  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType, reportIndexIssue]
        for layer in network.decoder.layers
        for expert in idle
    )


def measure_stages(
    model: WallXModel, rates: Rates, batch: int, attention: AttentionMode, rounds: int, tokens: int
) -> list[Row]:
    """All stages at one batch size: two cameras, LIBERO's length of prompt."""
    network = model.network
    trailing = 2 if attention == "upstream_sdpa" else 0  # whose prompt goes on after the actions
    seen = [make_input(model, TEXT, cameras=2, trailing=trailing, seed=seed) for seed in range(batch)]
    told = [make_input(model, TEXT + 2 * _CELLS, trailing=trailing, seed=seed) for seed in range(batch)]
    asked = [make_input(model, TEXT + 2 * _CELLS, actions=0, seed=seed) for seed in range(batch)]
    patches = torch.from_numpy(np.concatenate([item.patches for item in seen])).to(network.device)
    grids = tuple(grid for item in seen for grid in item.grids)
    sampler, generator = FlowSampler(network), Generator(network)
    state = sampler.prepare(told, attention, STEPS)
    decoding, _ = generator.prepare(asked, tokens)
    filled = int(decoding.slots[0])
    cached = state.cache.keys.nbytes * 2
    vision = sum(parameter.nbytes for parameter in network.vision.parameters())
    text, acting = weight_bytes(network, 0), weight_bytes(network, *((0, 1) if state.schedule.trailing else (1,)))
    head = network.decoder.embed_tokens.nbytes

    def decode() -> None:
        decoding.slots.fill_(filled)
        generator.step(decoding, filled + 1, is_even=True)

    run_steps: Callable[[], Any] = lambda: sampler.run(state)  # noqa: E731
    run_token: Callable[[], Any] = decode
    if network.device.type == "cuda":  # what the model does there
        capture = CudaCapture()
        run_steps = Graphs(sampler.run, capture).enter(state).replay
        room = decoding.cache.keys.shape[3]
        graphs: Graphs[DecodeState] = Graphs(lambda it: generator.step(it, room), capture)
        run_token = graphs.enter(decoding).replay

    def row(
        stage: str, function: Callable[[], Any], size: int, note: str = "", timed: Callable[[], Any] | None = None
    ) -> Row:
        flops, seconds = count_flops(function), seconds_of(timed or function, rounds)
        limit = max(size / rates.bandwidth, flops / rates.matmul)
        return Row(stage, batch, seconds, size / 1e9, flops / 1e9, limit, note)

    pictures = [np.random.default_rng(seed).integers(0, 256, (480, 640, 3), np.uint8) for seed in range(2 * batch)]

    def look() -> None:
        for picture in pictures:
            image_patches(resize_image(read_image(picture, "camera"), "camera"))

    rows = [
        row("images", look, sum(picture.nbytes for picture in pictures), f"{len(pictures)} of 480x640, on the CPU"),
        row("vision", lambda: network.vision(patches, grids), vision, f"{len(grids)} images"),
        row("prefill", lambda: sampler.prepare(told, attention, STEPS), text, f"{TEXT + 2 * _CELLS} tokens each"),
        row("one flow step", lambda: sampler.step(state, STEPS - 1), acting + cached),
        row("ten flow steps", lambda: sampler.run(state), STEPS * (acting + cached), timed=run_steps),
        row("all, flow", lambda: model.flow(seen, attention=attention), vision + text + STEPS * (acting + cached)),
    ]
    token = row("one FAST token", decode, text + head + cached, timed=run_token)
    return [*rows, Row(**{**asdict(token), "note": f"{batch / token.seconds:.1f} tokens/s"})]


def compare(model: WallXModel, prefix: int, attention: AttentionMode, rounds: int) -> dict[str, Any]:
    """Cached against recomputed, in turns."""
    item = [make_input(model, prefix)]
    cached, full = FlowSampler(model.network), FullSampler(model.network)
    ratios, times, answers = [], [], []
    for _ in range(rounds + 1):
        prepared = full.prepare(item, attention, STEPS)
        started = time.perf_counter()
        full.run(prepared)
        recomputed = prepared.flow.x.cpu()
        middle = time.perf_counter()
        state = cached.prepare(item, attention, STEPS)
        cached.run(state)
        sampled = state.x.cpu()
        ended = time.perf_counter()
        times.append((middle - started, ended - middle))
        ratios.append((middle - started) / (ended - middle))
        answers.append(float((recomputed - sampled).abs().max()))
    return {
        "prefix": prefix,
        "recompute_s": statistics.median(first for first, _ in times[1:]),
        "cached_s": statistics.median(second for _, second in times[1:]),
        "ratio": statistics.median(ratios[1:]),
        "goal": GOALS.get(prefix),
        "max_difference": max(answers),
    }


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    for row in [titles, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |")


def print_stages(rows: Sequence[Row]) -> None:
    titles = ("stage", "batch", "ms", "GB", "GFLOP", "limit ms", "of limit", "")
    print_table(
        titles,
        [
            (
                *(row.stage, str(row.batch), f"{row.seconds * 1e3:.1f}", f"{row.gigabytes:.3f}"),
                *(f"{row.gigaflops:.2f}", f"{row.limit_s * 1e3:.1f}", f"{row.limit_s / row.seconds:.0%}", row.note),
            )
            for row in rows
        ],
    )


def print_comparison(results: Sequence[dict[str, Any]]) -> None:
    titles = ("prefix", "recompute ms", "cached ms", "ratio", "goal", "max difference")
    print_table(
        titles,
        [
            (
                *(str(result["prefix"]), f"{result['recompute_s'] * 1e3:.0f}", f"{result['cached_s'] * 1e3:.0f}"),
                *(f"{result['ratio']:.2f}", str(result["goal"] or "-"), f"{result['max_difference']:.1e}"),
            )
            for result in results
        ],
    )


def load(size: str, device: str, dtype: Any, folder: str) -> tuple[WallXModel, dict[str, float]]:
    """Write a checkpoint, load it, and say what that took."""
    started = time.perf_counter()
    weights = write_random_checkpoint(folder, random_config(SIZES[size]), SIZES[size].vocabulary)
    written = time.perf_counter()
    model = load_model(folder, device=device, dtype=dtype)
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    facts = {
        "parameters": parameters,
        "file_bytes": weights,
        "weight_bytes": sum(parameter.nbytes for parameter in model.network.parameters()),
        "write_s": written - started,
        "load_s": time.perf_counter() - written,
        "loaded_peak_bytes": peak_bytes(),
    }
    return model, facts


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--attention", choices=ATTENTION_MODES, default="causal")
    parser.add_argument("--batches", default="1,2,4,8", help="empty: no stages")
    parser.add_argument("--compare", default="300,600,900", help="prefixes to compare with recompute at; empty: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write all results there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model, facts = load(options.size, options.device, options.dtype, folder)
        rates = measure_rates(model.network.device, model.network.dtype)
        is_gpu = model.network.device.type == "cuda"
        device = torch.cuda.get_device_name() if is_gpu else f"{options.threads} CPU threads"
        print(f"{options.size}: {facts['parameters'] / 1e6:.1f} M parameters, {options.dtype}, {device}")
        print(f"copy {rates.bandwidth / 1e9:.1f} GB/s, matmul {rates.matmul / 1e9:.0f} GFLOP/s\n")
        batches = [int(batch) for batch in options.batches.split(",") if batch]
        rows = [
            row
            for batch in batches
            for row in measure_stages(model, rates, batch, options.attention, options.rounds, 100)
        ]
        if rows:
            print_stages(rows)
        prefixes = [int(prefix) for prefix in options.compare.split(",") if prefix]
        results = [compare(model, prefix, options.attention, options.rounds) for prefix in prefixes]
        if results:
            print()
            print_comparison(results)
    facts["peak_bytes"] = peak_bytes()
    loaded = f"loaded {facts['weight_bytes'] / 1e9:.2f} GB in {facts['load_s']:.1f} s"
    peaks = f"{facts['loaded_peak_bytes'] / 1e9:.2f} GB until then, {facts['peak_bytes'] / 1e9:.2f} GB in all"
    print(f"\n{loaded}, peak memory {peaks}", file=sys.stderr)
    if options.json:
        report = {"size": asdict(SIZES[options.size]), "dtype": options.dtype, "device": device, "rates": asdict(rates)}
        report.update(facts=facts, attention=options.attention, stages=[asdict(row) for row in rows], compare=results)
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
