"""What real-time chunking costs a Wall-X network: ten Euler steps that agree with known rows, beside plain ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from policyserve.policies.prefix import Prefix
from policyserve.policies.rtc import Rtc
from policyserve.policies.wall_x.attention import AttentionMode
from policyserve.policies.wall_x.capture import CudaCapture
from policyserve.policies.wall_x.flow import FlowSampler
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.model import WallXModel, differentiable

WAYS = (None, Rtc("guided"), Rtc("identity"), Rtc("inpaint"))
_STEPS, _ACTIONS, _PREFIX, _DELAY = 10, 32, 237, 8


@dataclass(frozen=True)
class Guided:
    """One way at one batch size. seconds: the least of all rounds. ratio: to plain steps; whole: to plain requests."""

    method: str
    batch: int
    seconds: float
    ratio: float
    whole: float


def measure_guided(model: WallXModel, batch: int, attention: AttentionMode, rounds: int) -> list[Guided]:
    """Time each way's steps and requests, one after the other in each round. A request has no images."""
    trailing = 2 if attention == "upstream_sdpa" else 0
    items = [_made(model, trailing, seed) for seed in range(batch)]
    with differentiable():
        steps = [_steps(model.sampler, items, attention, how) for how in WAYS]
        whole = [_request(model, items, attention, how) for how in WAYS]
        of_steps, of_requests = (_least(works, rounds) for works in (steps, whole))
    names = ["plain" if how is None else how.method for how in WAYS]
    return [
        Guided(name, batch, one, one / of_steps[0], request / of_requests[0])
        for name, one, request in zip(names, of_steps, of_requests, strict=True)
    ]


def print_guided(found: Sequence[Guided]) -> None:
    print("steps      batch   ten steps   ratio   ratio of requests")
    for one in found:
        print(f"{one.method:9} {one.batch:6} {one.seconds * 1e3:8.1f} ms {one.ratio:7.2f} {one.whole:19.2f}")


def _steps(sampler: FlowSampler, items: Sequence[ModelInput], attention: AttentionMode, how: Rtc | None) -> Any:
    """All Euler steps, as the model runs them: recorded on a GPU."""
    state = sampler.prepare(items, attention, _STEPS, how)

    def run() -> None:
        sampler.run(state)

    return CudaCapture()(run) if sampler.network.device.type == "cuda" else run


def _request(model: WallXModel, items: Sequence[ModelInput], attention: AttentionMode, how: Rtc | None) -> Any:
    return lambda: model.flow(items, attention=attention, num_steps=_STEPS, how=how)


def _least(works: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """The least seconds of each; the first round warms up."""
    times = [[_seconds(work) for work in works] for _ in range(rounds + 1)]
    return [min(column) for column in zip(*times[1:], strict=True)]


def _seconds(work: Callable[[], Any]) -> float:
    """On a CPU those of this process, all threads together: what other programs take from it does not count."""
    is_gpu = torch.cuda.is_available()
    clock = time.perf_counter if is_gpu else time.process_time
    started = clock()
    work()
    if is_gpu:
        torch.cuda.synchronize()
    return clock() - started


def _made(model: WallXModel, trailing: int, seed: int) -> ModelInput:
    """A prompt of random words with a state at its end, and a chunk of which all rows are known."""
    a, random = model.architecture, np.random.default_rng(seed)
    special = {a.image_id, a.action_id, a.state_id, a.eos_id}
    allowed = np.array([i for i in range(model.network.decoder.embed_tokens.shape[0]) if i not in special])
    words = random.choice(allowed, _PREFIX - 1)
    shape = (_ACTIONS, a.action_dim)
    item = ModelInput(
        input_ids=np.array([*words, a.state_id, *[a.action_id] * _ACTIONS, *words[:trailing]], dtype=np.int64),
        patches=np.zeros((0, 588), np.uint8),
        grids=(),
        state=random.standard_normal(a.state_dim, dtype=np.float32),
        state_mask=np.ones(a.state_dim, np.float32),
        dof_mask=np.ones(shape, np.float32),
        noise=random.standard_normal(shape, dtype=np.float32),
        dataset="",
    )
    return replace(item, prefix=Prefix(random.standard_normal(shape, dtype=np.float32), _ACTIONS, _DELAY))
