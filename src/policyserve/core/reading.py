"""How a session reads its requests: a client's frames differ in little but their arrays, so most need no decoding.

What must stay true: a Layout gives what decoding and validating the frame would have given, or None. It takes a frame
only if every byte outside its arrays' data is the same as in the frame that it was learned from, and those bytes alone
say what the frame holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, Placed, array_from_buffer
from policyserve.core.dialect import Dialect
from policyserve.core.errors import PolicyserveError
from policyserve.core.leaves import ArraySpec
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Frame, Observation, Request
from policyserve.core.spec import PolicySpec, ValidObservation, look_up

_COPIED = 1024  # bytes; a smaller array of a large frame is copied, so that nobody keeps a large buffer for it
_TRIES = 4  # layouts that may be learned in a row for nothing
_HITS_PER_TRY = 64  # frames read by a layout earn another


class RequestReader:
    """Reads one session's requests: by the layout of the frames before where it fits, else through the dialect."""

    def __init__(self, limits: WireLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._layout: Layout | None = None
        self._last_size = -1
        self._tries = _TRIES
        self._hits = 0

    def read(self, dialect: Dialect, spec: PolicySpec, frame: Frame) -> ValidObservation:
        """The observation, as the policy gets it; raises WireError and BadObservation."""
        if self._layout is not None and isinstance(frame, memoryview):
            valid = self._layout.read(frame)
            if valid is not None:
                self._hits += 1
                return valid
        valid = _read(dialect, spec, frame, self._limits)
        size = len(frame)
        if size == self._last_size and isinstance(frame, memoryview):  # twice the same size: perhaps more is the same
            self._learn(dialect, spec, frame)
        self._last_size = size
        return valid

    def _learn(self, dialect: Dialect, spec: PolicySpec, frame: memoryview) -> None:
        self._tries = min(self._tries + self._hits // _HITS_PER_TRY, _TRIES)
        self._hits = 0
        if self._tries > 0:
            self._tries -= 1
            self._layout = learn_layout(dialect, spec, frame, self._limits)


def learn_layout(
    dialect: Dialect, spec: PolicySpec, frame: memoryview, limits: WireLimits = DEFAULT_LIMITS
) -> Layout | None:
    """The layout of a good frame; None if none of its arrays stands in it as raw bytes."""
    placed: list[Placed] = []
    try:
        request = dialect.read_request(frame, placed, limits)
        valid = spec.validate(request.observation, limits)
    except PolicyserveError:
        return None
    holes = {id(one.array): _Hole(one, len(frame)) for one in placed}
    for path, leaf in spec.leaves.items():
        raw, cast = look_up(request.observation, path), look_up(valid.observation, path)
        if raw is not cast and id(raw) in holes and isinstance(leaf, ArraySpec):
            holes[id(cast)] = holes[id(raw)].cast_by(leaf, path)
    used: list[_Hole] = []
    template = _template(_unwrapped(request, valid, spec), holes, used)
    # An array that the spec does not know is dropped whatever is in it. One that stands in neither is no array any
    # more (a scalar, say): its bytes must stay the same.
    dropped: list[_Hole] = []
    _template(request.observation, holes, dropped)
    return Layout(frame, valid, template, {*used, *dropped}) if used else None


def _read(dialect: Dialect, spec: PolicySpec, frame: Frame, limits: WireLimits) -> ValidObservation:
    request = dialect.read_request(frame, None, limits)
    valid = spec.validate(request.observation, limits)
    observation = _unwrapped(request, valid, spec)
    if observation is valid.observation:
        return valid
    return ValidObservation(observation, valid.batch_size, valid.unknown)


def _unwrapped(request: Request, valid: ValidObservation, spec: PolicySpec) -> Observation | Any:
    """What the policy gets: the array alone where the wire carried just that and no spec asks for a map."""
    if request.bare and spec.observation is None:
        (alone,) = request.observation.values()
        return alone
    return valid.observation


class Layout:
    """A frame without its arrays: what must be equal in the next one, and what comes of it then."""

    def __init__(self, frame: memoryview, valid: ValidObservation, template: Any, holes: Iterable[_Hole]) -> None:
        self._size = len(frame)
        self._template = template
        self._batch_size = valid.batch_size
        self._unknown = valid.unknown
        self._same: list[tuple[int, int, bytes]] = []
        start = 0
        for hole in sorted(holes, key=lambda hole: hole.start):
            self._same.append((start, hole.start, bytes(frame[start : hole.start])))
            start = hole.stop
        self._same.append((start, self._size, bytes(frame[start:])))

    def read(self, frame: memoryview) -> ValidObservation | None:
        """The observation of a frame of this layout; None for any other. Raises BadObservation as validate() does."""
        if len(frame) != self._size:
            return None
        for start, stop, same in self._same:
            if frame[start:stop] != same:
                return None
        return ValidObservation(_fill(self._template, frame), self._batch_size, self._unknown)


class _Hole:
    """Where an array's data stands in a frame, and what becomes of it."""

    __slots__ = ("cast", "copies", "dtype", "is_plain", "path", "shape", "start", "stop")

    def __init__(self, placed: Placed, frame_size: int) -> None:
        nbytes = placed.array.nbytes
        self.start, self.stop = placed.start, placed.start + nbytes
        self.dtype, self.shape = placed.dtype, placed.shape
        self.is_plain = placed.dtype.isnative and placed.dtype.kind != "b" and nbytes > 0
        self.copies = nbytes < _COPIED <= frame_size
        self.cast: ArraySpec | None = None  # to this spec's dtype
        self.path = ""

    def cast_by(self, leaf: ArraySpec, path: str) -> _Hole:
        self.cast, self.path = leaf, path
        return self

    def read(self, frame: memoryview) -> Array:
        if self.is_plain:
            # Around an array: np.ndarray() has no hold on a memoryview, whose buffer would go to another message.
            array: Array = np.ndarray(self.shape, self.dtype, np.frombuffer(frame, np.uint8), self.start)
            if self.copies or not array.flags.aligned:
                array = array.copy()
        else:
            array = array_from_buffer(frame[self.start : self.stop], self.dtype, self.shape, self.path)
        return array if self.cast is None else self.cast.read(array, self.path)[0]


def _template(value: Any, holes: Mapping[int, _Hole], used: list[_Hole]) -> Any:
    if isinstance(value, dict):
        return {key: _template(inner, holes, used) for key, inner in value.items()}
    hole = holes.get(id(value)) if isinstance(value, np.ndarray) else None
    if hole is None:
        return value
    used.append(hole)
    return hole


def _fill(template: Any, frame: memoryview) -> Any:
    kind = type(template)
    if kind is dict:
        return {key: _fill(inner, frame) for key, inner in template.items()}
    if kind is _Hole:
        return template.read(frame)
    if kind is list:
        return [_fill(inner, frame) for inner in template]
    return template.copy() if kind is np.ndarray else template
