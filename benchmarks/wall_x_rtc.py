"""Measure what real-time chunking costs a Wall-X network of random weights, as a ratio to plain sampling.

    python benchmarks/wall_x_rtc.py [--size tiny|mid|real] [--device cpu|cuda] [--dtype float32|bfloat16]
                                    [--attention causal] [--batches 1,4] [--rounds 8]

Ten Euler steps after a prefix of 237 tokens, 32 actions, of which 8 will have run: plain, guided (with a reverse pass
of the network at each step), identity and inpaint. The ways take turns, and the least of all rounds counts; on a CPU
that is the process's own time, so that other programs of the machine matter little. On a GPU the steps are CUDA graphs,
as served.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from wall_x_models.guided import measure_guided, print_guided
from wall_x_models.random_checkpoint import SIZES, random_config, write_random_checkpoint

from policyserve.policies.wall_x.attention import ATTENTION_MODES
from policyserve.policies.wall_x.model import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--attention", choices=ATTENTION_MODES, default="causal")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        size = SIZES[options.size]
        write_random_checkpoint(Path(folder), random_config(size), size.vocabulary)
        model = load_model(folder, device=options.device, dtype=options.dtype)
    print(f"{options.size}, {options.dtype}, {options.attention}, {options.device}, {options.threads} threads")
    for batch in map(int, options.batches.split(",")):
        print_guided(measure_guided(model, batch, options.attention, options.rounds))


if __name__ == "__main__":
    main()
