"""Small programs, saved as users save them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")
Tensor = torch.Tensor
nn = torch.nn


class Twice(nn.Module):  # one array, any batch
    def forward(self, obs: Tensor) -> Tensor:
        return 2 * obs


class Counting(nn.Module):  # a buffer that is written in place, and begins as the file has it
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.full((1, 1), 10.0))

    def forward(self, obs: Tensor) -> Tensor:
        self.count[:] = self.count + 1
        return obs + self.count


class Resetting(Counting):
    @torch.jit.export
    def reset(self) -> None:
        self.count[:] = 0.0


class Replacing(nn.Module):  # a buffer that becomes another tensor, of another shape
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1))

    def forward(self, obs: Tensor) -> Tensor:
        before = self.last.sum()
        self.last = obs + 0.0
        return obs + before


class Hiding(nn.Module):  # a memory that is no buffer
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, obs: Tensor) -> Tensor:
        self.count += 1
        return obs + self.count


class Mixing(nn.Module):  # an axis that looks like a batch and is none
    def forward(self, obs: Tensor) -> Tensor:
        return obs - obs.mean(0)


class Looking(nn.Module):  # a picture and a state
    def forward(self, image: Tensor, state: Tensor) -> Tensor:
        return image.mean([2, 3]) + state


class Seeing(nn.Module):  # a picture and a state of another width
    def forward(self, image: Tensor, state: Tensor) -> Tensor:
        return image.mean([1, 2, 3]).unsqueeze(1) + state


class Mapping(nn.Module):
    def forward(self, obs: Tensor) -> dict[str, Tensor]:
        return {"value": obs.sum(1), "actions": obs}


class Pair(nn.Module):
    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        return obs, 2 * obs


class Squeezing(nn.Module):
    def forward(self, obs: Tensor) -> Tensor:
        return obs.flatten()


class Dividing(nn.Module):
    def forward(self, obs: Tensor) -> Tensor:
        return obs / obs


class Nowhere(nn.Module):
    def forward(self, obs: Tensor) -> Tensor:
        return obs / 0 - obs / 0


class Writing(nn.Module):  # into what it was given
    def forward(self, obs: Tensor) -> Tensor:
        obs += 1.0
        return obs


class FromMap(nn.Module):
    def forward(self, obs: dict[str, Tensor], gain: Tensor) -> Tensor:
        return obs["left"] * gain + obs["right"]


def scripted(module: Any, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(path))
    return str(path)


def exported(module: Any, path: Path, *args: Any, kwargs: Any = None, sizes: Any = None) -> str:
    """sizes: the names of free sizes, as torch.export takes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module.eval(), args, kwargs, dynamic_shapes=sizes)
        torch.export.save(program, str(path))
    return str(path)
