"""What a person sees of one session: its newest pictures, numbers, texts and actions. Nothing of it is kept for long.

Observations and chunks are the policy's own, so what is shown is copied when it is told: a few times a second, bounded.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.leaf_specs import ArraySpec, ImageSpec, LeafSpec
from policyserve.core.policy import ActionChunk
from policyserve.core.printable import one_line
from policyserve.core.spec import PolicySpec
from policyserve.observe.thumbnails import Cut, Thumbnail, cut_down

_EVERY_S = 0.2  # between two observations that are shown, and two chunks
_ACTION_EVERY_S = 0.01  # between two single actions
_MOST_CAMERAS = 8
_MOST_VALUES = 24  # arrays and texts of an observation
_MOST_NUMBERS = 64  # of an array
_MOST_OF_TEXT, _MOST_OF_PATH = 500, 80  # characters
_MOST_DIMENSIONS, _MOST_STEPS = 32, 128  # of an action chunk
_DIGITS = 5


class Shown(NamedTuple):
    """An array of an observation. names: of its numbers, as many as there are, where its description tells them."""

    path: str
    shape: tuple[int, ...]
    doc: str
    names: tuple[str, ...]
    values: tuple[float, ...]


class Look:
    """What is shown of one session. on_pictures: given pictures to make smaller; None where none are shown."""

    def __init__(self, on_pictures: Callable[[Sequence[Cut]], None] | None) -> None:
        self.asked_at = 0.0  # when somebody wanted to see it, on the clock of see()
        self.thumbnails: dict[str, Thumbnail] = {}
        self.numbers: list[Shown] = []
        self.texts: list[tuple[str, str]] = []
        self.chunk: Array | None = None  # (steps, dimensions), the newest
        self.recent: deque[Array] = deque(maxlen=_MOST_STEPS)  # single actions, the oldest first
        self._on_pictures = on_pictures
        self._due = self._action_due = 0.0
        self._is_making = False
        self._made = 0

    def see(self, observation: Any, spec: PolicySpec | None, now: float) -> None:
        """Copy what is shown of an observation, unless one was seen just now. now: seconds, any clock."""
        if now < self._due:
            return
        self._due = now + _EVERY_S
        leaves = spec.leaves if spec is not None else {}
        numbers: list[Shown] = []
        texts: list[tuple[str, str]] = []
        cuts: list[Cut] = []
        for path, value in _values_in(observation):
            shown_path, leaf = one_line(path, _MOST_OF_PATH), leaves.get(path)
            if isinstance(value, str) or _is_texts(value):
                text = value if isinstance(value, str) else "\n".join(one[:_MOST_OF_TEXT] for one in value[:8])
                texts.append((shown_path, text[:_MOST_OF_TEXT]))
            elif isinstance(leaf, ImageSpec) or _is_picture(value):
                self._cut(cuts, shown_path, value, leaf)
            elif (shown := _shown(shown_path, value, leaf)) is not None:
                numbers.append(shown)
            if len(numbers) + len(texts) >= _MOST_VALUES:
                break
        self.numbers, self.texts = numbers, texts
        if cuts and self._on_pictures is not None:
            self._is_making = True
            self._on_pictures(cuts)

    def note_pictures(self, made: Sequence[tuple[Cut, bytes]]) -> None:
        """Pictures were made smaller."""
        self._is_making = False
        self._made += 1
        self.thumbnails = {cut.path: Thumbnail(cut.path, jpeg, cut.shape, self._made) for cut, jpeg in made}

    def act(self, chunk: ActionChunk, spec: PolicySpec | None, now: float) -> None:
        """Copy what is shown of an answer, unless one was seen just now."""
        if now < self._action_due:
            return
        actions = np.asarray(chunk.actions)
        if actions.dtype.kind not in "biuf" or not actions.size:
            return
        has_steps = spec is None or spec.horizon is not None or (spec.action is None and actions.ndim > 1)
        own = len(spec.action.shape) if spec is not None and spec.action is not None else min(actions.ndim, 1)
        axes = own + (1 if has_steps and actions.ndim > own else 0)
        actions = actions[(0,) * max(actions.ndim - axes, 0)]  # of a client's batch the first
        steps = actions.reshape(len(actions), -1) if axes > own else actions.reshape(1, -1)
        steps = steps[:: math.ceil(len(steps) / _MOST_STEPS), :_MOST_DIMENSIONS].astype(np.float64)
        self._action_due = now + (_EVERY_S if len(steps) > 1 else _ACTION_EVERY_S)
        if len(steps) > 1:
            self.chunk = steps
            self.recent.clear()
        else:
            self.chunk = None
            if self.recent and self.recent[-1].shape != steps[0].shape:
                self.recent.clear()
            self.recent.append(steps[0])

    def actions(self) -> list[list[float | None]]:
        """A line for each dimension: the newest chunk's steps, or the last actions where each is asked for."""
        steps = self.chunk if self.chunk is not None else np.array(self.recent)
        return [[finite(value) for value in line] for line in steps.T] if len(steps) else []

    def _cut(self, cuts: list[Cut], path: str, value: Any, leaf: LeafSpec | None) -> None:
        if self._on_pictures is None or self._is_making or len(cuts) >= _MOST_CAMERAS or not _is_array(value):
            return
        if (cut := cut_down(path, value, leaf)) is not None:
            cuts.append(cut)


def finite(value: float) -> float | None:
    """A number as JSON can say it, in five digits; None for NaN and infinities."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def names_in(doc: str, count: int) -> tuple[str, ...]:
    """The names of so many numbers, where a description lists just as many, by commas; else nothing."""
    names = [name.strip() for name in _split_outside_brackets(doc.partition(";")[0])]
    return tuple(one_line(name, _MOST_OF_PATH) for name in names) if len(names) == count > 1 else ()


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth = [""], 0
    for letter in text[:2000]:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _values_in(observation: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The first values of an observation by path; an array alone is called `obs`, as vibe_rl does."""
    if not isinstance(observation, Mapping):
        yield "obs", observation
        return
    for key, value in list(observation.items())[: 2 * _MOST_VALUES]:
        if isinstance(value, Mapping):
            yield from _values_in(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _is_array(value: Any) -> TypeGuard[Array]:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def _is_picture(value: Any) -> bool:
    return _is_array(value) and value.dtype == np.uint8 and value.ndim >= 3


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value[:8])


def _shown(path: str, value: Any, leaf: LeafSpec | None) -> Shown | None:
    if isinstance(value, (int, float)) or (isinstance(value, list) and len(value) <= _MOST_NUMBERS):
        try:
            value = np.asarray(value)
        except Exception:  # a ragged list, or numbers that no dtype holds
            return None
    if not _is_array(value):
        return None
    array, doc = value, ""
    if isinstance(leaf, ArraySpec):
        doc = one_line(leaf.doc, _MOST_OF_TEXT)
        if array.ndim > len(leaf.shape) and len(array):
            array = array[0]  # of a client's batch the first
    flat = np.asarray(array).reshape(-1)
    values = tuple(float(number) for number in flat[:_MOST_NUMBERS])
    return Shown(path, value.shape, doc, names_in(doc, flat.size), values)
