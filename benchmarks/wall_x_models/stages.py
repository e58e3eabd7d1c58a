"""Each stage of a Wall-X request, timed as the model runs it on its device, beside what the device could do at best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from policyserve.policies.wall_x.attention import AttentionMode
from policyserve.policies.wall_x.capture import CudaCapture
from policyserve.policies.wall_x.images import image_patches, read_image, resize_image
from policyserve.policies.wall_x.model import WallXModel

from .costs import Cost, Costs
from .observed import ACTIONS, PREFIX, STEPS, TEXT, make_input
from .timing import Rates, seconds_of

Work = Callable[[], Any]
_NEW_TOKENS = 100
_GPU_SLOTS = 64  # in whose multiples a step reads the cache there


@dataclass(frozen=True)
class Row:
    """One stage at one batch size. limit_s: what its bytes or FLOPs take at the device's own rates."""

    stage: str
    batch: int
    seconds: float
    gigabytes: float
    gigaflops: float
    limit_s: float
    note: str = ""


def measure_stages(
    model: WallXModel, rates: Rates, batch: int, attention: AttentionMode, rounds: int, *, eager: bool
) -> list[Row]:
    """All stages at one batch size: two cameras, LIBERO's length of prompt. eager: ten steps without a graph too."""
    costs = costs_of(model)
    trailing = 2 if attention == "upstream_sdpa" else 0  # whose prompt goes on after the actions
    seen = [make_input(model, TEXT, cameras=2, trailing=trailing, seed=seed) for seed in range(batch)]
    told = [make_input(model, PREFIX, trailing=trailing, seed=seed) for seed in range(batch)]
    sampler = model.sampler
    request = sampler.gather(told, attention, STEPS)
    state = sampler.begin(request)
    patches = torch.from_numpy(np.concatenate([item.patches for item in seen])).to(model.network.device)
    grids = tuple(grid for item in seen for grid in item.grids)
    vision, prefill = costs.vision(grids), costs.prefill(PREFIX, batch)
    last = 0 if attention != "upstream_sdpa" else trailing
    step = costs.flow_step(PREFIX, ACTIONS, trailing=last, batch=batch)
    steps = costs.flow_steps(attention, STEPS, PREFIX, ACTIONS, trailing=trailing, batch=batch)
    parts = [("vision", vision), ("prefill", prefill), ("ten flow steps", steps)]
    limits = {name: cost.seconds(rates.bandwidth, rates.matmul) for name, cost in parts}
    total = Cost(0, 0)
    for _, cost in parts:
        total += cost

    def row(stage: str, work: Work, cost: Cost, note: str = "", limit: float | None = None) -> Row:
        seconds = seconds_of(work, rounds)
        found = cost.seconds(rates.bandwidth, rates.matmul) if limit is None else limit
        return Row(stage, batch, seconds, cost.bytes / 1e9, cost.flops / 1e9, found, note)

    network, k = model.network, STEPS - 1
    rows = [
        images_row(batch, rounds),
        row("vision", as_served(model, lambda: network.vision(patches, grids)), vision, f"{len(grids)} images"),
        row("prefill", as_served(model, lambda: sampler.begin(request)), prefill, f"{PREFIX} tokens each"),
        row("one flow step", as_served(model, lambda: sampler.step(state, k)), step),
        row("ten flow steps", as_served(model, lambda: sampler.run(state)), steps),
    ]
    if eager and network.device.type == "cuda":
        rows.append(row("ten, no graph", lambda: sampler.run(state), steps))
    whole = row("all, flow", lambda: model.flow(seen, attention=attention), total, limit=sum(limits.values()))
    return [*rows, whole, token_row(model, rates, batch, rounds)]


def costs_of(model: WallXModel) -> Costs:
    embedding = model.network.decoder.embed_tokens
    return Costs(model.architecture, embedding.shape[0], embedding.element_size())


def as_served(model: WallXModel, work: Work) -> Work:
    """What the model does there with work on fixed tensors: a graph on a GPU, the work itself on a CPU."""
    return CudaCapture()(work) if model.network.device.type == "cuda" else work


def images_row(batch: int, rounds: int) -> Row:
    """What preparing the pictures takes, on the CPU wherever the network is; it has no limit of the device's."""
    pictures = [np.random.default_rng(seed).integers(0, 256, (480, 640, 3), np.uint8) for seed in range(2 * batch)]

    def look() -> None:
        for picture in pictures:
            image_patches(resize_image(read_image(picture, "camera"), "camera"))

    size = sum(picture.nbytes for picture in pictures)
    note = f"{len(pictures)} of 480x640, on the CPU"
    return Row("images", batch, seconds_of(look, rounds), size / 1e9, 0.0, 0.0, note)


def token_row(model: WallXModel, rates: Rates, batch: int, rounds: int) -> Row:
    """One token of each sequence, always the one behind the prompt, so that no number of rounds fills the cache."""
    asked = [make_input(model, PREFIX, actions=0, seed=seed) for seed in range(batch)]
    generator = model.generator
    state, _ = generator.prepare(asked, _NEW_TOKENS)
    start = state.slots.clone()
    is_gpu = model.network.device.type == "cuda"
    stop = -(-(PREFIX + 1) // _GPU_SLOTS) * _GPU_SLOTS if is_gpu else PREFIX + 1

    def decode() -> None:
        state.slots.copy_(start)
        generator.step(state, stop, is_even=not is_gpu)

    seconds = seconds_of(as_served(model, decode), rounds)
    cost = costs_of(model).fast_token(PREFIX, batch)
    limit = cost.seconds(rates.bandwidth, rates.matmul)
    note = f"{batch / seconds:.1f} tokens/s"
    return Row("one FAST token", batch, seconds, cost.bytes / 1e9, cost.flops / 1e9, limit, note)
