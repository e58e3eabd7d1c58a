"""Sampling with a cache against recomputing the whole sequence at every step: same weights, same noise."""

from __future__ import annotations

import statistics
import time
from typing import Any

from policyserve.policies.wall_x.attention import AttentionMode
from policyserve.policies.wall_x.model import WallXModel

from .observed import STEPS, make_input
from .recompute import FullSampler
from .stages import as_served
from .timing import wait_for_device

GOALS = {300: 5.5, 600: 7.0, 900: 7.5}


def compare(model: WallXModel, prefix: int, attention: AttentionMode, rounds: int) -> dict[str, Any]:
    """Time both in turns, each as a model would run it on this device: on a GPU both loops are graphs.

    The recomputing side's prefix is embedded already; the cached side begins with its prefill.
    """
    item = [make_input(model, prefix)]
    full = FullSampler(model.network)
    prepared = full.prepare(item, attention, STEPS)
    noise = prepared.flow.x.clone()

    def run() -> None:
        prepared.flow.x.copy_(noise)
        full.run(prepared)

    recompute = as_served(model, run)
    ratios, times, answers = [], [], []
    for _ in range(rounds + 1):
        wait_for_device()
        started = time.perf_counter()
        recompute()
        recomputed = prepared.flow.x.cpu()
        middle = time.perf_counter()
        sampled = model.sampler.sample(item, attention, STEPS).cpu()
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
