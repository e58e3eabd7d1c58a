"""What the first request of a shape costs that nobody sent before: graphs, plans and kernels are made for it then."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from policyserve.policies.wall_x.attention import AttentionMode
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.model import WallXModel

from .observed import TEXT, make_input
from .timing import gpu_memory, wait_for_device

_LONGER, _OTHER_CAMERA = 90, (14, 18)  # tokens of text; 480 × 640 in patches


@dataclass(frozen=True)
class FirstCall:
    """A new shape: its first request, its second, and the device's memory that is in use after it (0: a CPU)."""

    shape: str
    first_s: float
    second_s: float
    used_bytes: int

    @property
    def extra_s(self) -> float:
        return self.first_s - self.second_s


def measure_first_calls(model: WallXModel, attention: AttentionMode) -> list[FirstCall]:
    """Send shapes that differ in one thing each from one that was served already."""
    usual = make_input(model, TEXT, cameras=2)
    for _ in range(2):
        model.flow([usual], attention=attention)
    return [
        _time(model, f"a prompt {_LONGER - TEXT} tokens longer", [make_input(model, _LONGER, cameras=2)], attention),
        _time(model, "three observations at once", [usual] * 3, attention),
        _time(model, "images of 480x640", [with_cameras(model, usual)], attention),
        *(
            _time(model, f"{size} at once, 300 tokens more", [make_input(model, 300)] * size, attention)
            for size in (1, 8)
        ),
    ]


def with_cameras(model: WallXModel, item: ModelInput) -> ModelInput:
    """An observation of two cameras of another size."""
    image, rows, columns = model.architecture.image_id, *_OTHER_CAMERA
    words = item.input_ids[item.input_ids != image]
    return ModelInput(
        input_ids=np.concatenate([words[:2], np.full(2 * rows * columns // 4, image), words[2:]]),
        patches=item.patches[: 2 * rows * columns],
        grids=(_OTHER_CAMERA,) * 2,
        state=item.state,
        state_mask=item.state_mask,
        dof_mask=item.dof_mask,
        noise=item.noise,
        dataset="",
    )


def _time(model: WallXModel, shape: str, items: list[ModelInput], attention: AttentionMode) -> FirstCall:
    times = []
    for _ in range(2):
        wait_for_device()
        started = time.perf_counter()
        model.flow(items, attention=attention)
        times.append(time.perf_counter() - started)
    return FirstCall(shape, *times, used_bytes=gpu_memory(model.network.device).get("used_bytes", 0))
