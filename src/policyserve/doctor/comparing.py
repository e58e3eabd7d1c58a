"""What a spec dislikes of an observation, key by key, where a server refuses at the first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations
from math import prod
from typing import Any

import numpy as np

from policyserve.core.errors import BadObservation
from policyserve.core.leaf_specs import ArraySpec, ImageSpec, LeafSpec, TextListSpec, TextSpec, name_of
from policyserve.core.messages import Observation
from policyserve.core.nearest import nearest
from policyserve.core.spec import MISSING, PolicySpec, look_up, paths_in

_ALIKE = 0.5
_MOST_TOLD = 20


@dataclass(frozen=True)
class Fault:
    """One key. is_harmless: the server drops it, and answers."""

    path: str
    expected: str
    got: str
    cure: str
    is_harmless: bool = False

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, got {self.got}"


def faults(spec: PolicySpec, observation: Observation) -> list[Fault]:
    """All that is wrong with it: keys that are missing, have another form, or are not known."""
    return list(_faults(spec, observation))[:_MOST_TOLD]


def _faults(spec: PolicySpec, observation: Observation) -> Iterator[Fault]:
    unknown = [path for path in paths_in(observation) if path not in spec.leaves and path not in spec.aliases]
    for path, leaf in spec.leaves.items():
        try:
            value = spec.look_up(observation, path)
        except BadObservation as error:
            yield Fault(path, error.expected, error.got, "send one of them")
            continue
        if value is not MISSING:
            yield from _of_value(path, leaf, value)
        elif not _may_lack(leaf):
            near = nearest(path, unknown, _ALIKE) or _alike(leaf, unknown, observation)
            if near is not None:
                unknown.remove(near)
                yield Fault(path, str(leaf), f"no such key, but {near}", f"rename {near} to {path}")
                yield from _of_value(path, leaf, look_up(observation, near))
            else:
                yield Fault(path, str(leaf), "no such key", f"send it as {path}")
    for path in unknown:
        got = f"{name_of(look_up(observation, path))}, which the server drops"
        yield Fault(path, "no such key", got, "leave it out, or name it as the spec does", is_harmless=True)


def _alike(leaf: LeafSpec, unknown: Iterable[str], observation: Observation) -> str | None:
    """The one unknown key whose value this leaf would take, whatever it is called; else the one other picture."""
    values = {path: look_up(observation, path) for path in unknown}
    fitting = [path for path, value in values.items() if _takes(leaf, value)]
    pictures = [path for path, value in values.items() if isinstance(value, np.ndarray) and value.ndim >= 3]
    if not fitting and isinstance(leaf, ImageSpec):
        fitting = pictures
    return fitting[0] if len(fitting) == 1 else None


def _of_value(path: str, leaf: LeafSpec, value: Any) -> Iterator[Fault]:
    try:
        _, batch = leaf.read(value, path)
    except BadObservation as error:
        yield Fault(error.path, error.expected, error.got, _cure(leaf, value) or error.hint or "send it so")
        return
    if batch is not None:
        got = f"{name_of(value)}, a batch of {batch}"
        yield Fault(path, str(leaf), got, "send one at a time, unless the policy takes batches", is_harmless=True)


def _may_lack(leaf: LeafSpec) -> bool:
    return leaf.optional or (isinstance(leaf, TextSpec) and leaf.default is not None)


def _cure(leaf: LeafSpec, value: Any) -> str:
    """What to write in Python; empty where it cannot be told."""
    if isinstance(leaf, (TextSpec, TextListSpec)):
        return "send a str"
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return "send a NumPy array of numbers"
    if isinstance(leaf, ImageSpec):
        return " and ".join(filter(None, (_layout_cure(leaf, value), _dtype_cure(leaf, value))))
    return _array_cure(leaf, value)


def _layout_cure(leaf: ImageSpec, value: np.ndarray[Any, Any]) -> str:
    """How to turn its axes, or how large it has to be."""
    typed = ImageSpec(leaf.height, leaf.width, leaf.layouts, (value.dtype.name,))
    if _takes(typed, value):
        return ""
    for order in permutations(range(value.ndim)) if value.ndim <= 4 else ():
        if _keeps_sides(order, value) and _takes(typed, value.transpose(order)):
            return f"turn its axes: image.transpose{order}"
    if value.ndim >= 3 and 4 in (value.shape[-1], value.shape[0]):
        return "send three channels: image[..., :3]" if value.shape[-1] == 4 else "send three channels: image[:3]"
    if _takes(ImageSpec(None, None, leaf.layouts, (value.dtype.name,)), value):
        return f"resize it to {leaf.height or 'any'} x {leaf.width or 'any'} (height x width)"
    return f"send it as {' or '.join(leaf.layouts)}"


def _keeps_sides(order: tuple[int, ...], value: np.ndarray[Any, Any]) -> bool:
    """Whether height stays before width: the channels move, the rest keeps its order."""
    rest = [axis for axis in order if value.shape[axis] not in (1, 3)]
    return rest == sorted(rest)


def _dtype_cure(leaf: ImageSpec, value: np.ndarray[Any, Any]) -> str:
    if value.dtype.name in leaf.dtypes or (value.dtype.kind == "f" and "float" in leaf.dtypes):
        return ""
    if value.dtype.kind == "f" and "uint8" in leaf.dtypes:
        is_unit = not (value > 1).any()
        return "send uint8: (image * 255).astype(np.uint8)" if is_unit else "send uint8: image.astype(np.uint8)"
    if value.dtype == np.uint8 and any(dtype.startswith("float") for dtype in leaf.dtypes):
        return f"send {leaf.dtypes[0]}, in the scale that the policy was trained with"
    return f"send {' or '.join(leaf.dtypes)}"


def _array_cure(leaf: ArraySpec, value: np.ndarray[Any, Any]) -> str:
    if _takes(ArraySpec(leaf.shape, value.dtype.name), value) and value.dtype.kind in "biuf":
        return f"send it as {leaf.dtype}: array.astype('{leaf.dtype}')"
    sizes = [size for size in leaf.shape if size is not None]
    if len(sizes) == len(leaf.shape) and prod(sizes) == value.size:
        return f"give it the shape: array.reshape{leaf.shape}"
    if value.ndim == len(leaf.shape):
        return "send so many numbers as the policy was trained with"
    return ""


def _takes(leaf: LeafSpec, value: Any) -> bool:
    try:
        _, batch = leaf.read(value, "")
    except BadObservation:
        return False
    return batch is None
