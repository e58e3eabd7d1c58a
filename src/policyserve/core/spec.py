"""What a policy takes and gives, and the checks at both ends.

A spec's keys are paths: `observation/image` is met by the flat key of that name and by `{"observation": {"image": …}}`
alike, and both at once are refused. The policy receives the nesting that its spec has. One leading dimension more
than the spec's, the same on every array, is the client's own batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from typing import Any, TypeAlias, cast

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import BadAction, BadObservation
from policyserve.core.messages import Observation

_MAX_KEYS_TOLD = 64  # of an observation that lacks one; comparing thousands would hold the event loop up
_ANY_SIZE_EXAMPLE = 8  # what example() puts where a spec leaves a size free
_ANY_SIDE_EXAMPLE = 64  # and for an image's side
_MAX_IMAGE_SIDE = 8192
_MAX_TEXT = 100_000  # characters


@dataclass(frozen=True)
class ArraySpec:
    """Numbers of one shape and dtype. shape: None is any size. doc: meaning and unit."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    doc: str = ""
    optional: bool = False

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)

    def read(self, value: Any, path: str) -> tuple[Array, int | None]:
        """Return `value` as this spec's dtype and its batch size (None: no client batch); raises BadObservation."""
        if not isinstance(value, (np.ndarray, np.generic, int, float)):
            raise BadObservation(path, str(self), _name_of(value))
        array: Array = np.asarray(value)
        extra = array.ndim - len(self.shape)
        sizes = array.shape[extra:] if extra in (0, 1) else None
        if sizes is None or not _sizes_match(sizes, self.shape):
            raise BadObservation(path, str(self), _name_of(value))
        return self._cast(array, path), array.shape[0] if extra else None

    def _cast(self, array: Array, path: str) -> Array:
        wanted = np.dtype(self.dtype)
        if array.dtype == wanted:
            return array
        if wanted.kind == "f" and array.dtype.kind in "biuf":
            # A float64 beyond float32 becomes inf, a signalling NaN a quiet one: the policy decides.
            with np.errstate(all="ignore"):
                return array.astype(wanted)
        if wanted.kind in "iu" and array.dtype.kind in "biu":
            cast_array = array.astype(wanted)
            if np.array_equal(cast_array, array):
                return cast_array
        raise BadObservation(path, str(self), _name_of(array))

    def example(self, batch: tuple[int, ...] = ()) -> Array:
        """Zeros of this shape, with `batch` in front."""
        return np.zeros(batch + _filled(self.shape), self.dtype)

    def describe(self) -> dict[str, Any]:
        """JSON-like description, for metadata."""
        return {"kind": "array", "shape": list(self.shape), "dtype": self.dtype, "doc": self.doc}


@dataclass(frozen=True)
class ImageSpec:
    """A camera image. An image is never cast between uint8 and float: its scale would be a guess.

    layouts: the orders of axes that pass, such as "HWC" and "CHW" (C is 3 channels), "HW" (gray) or "1HWC"; the first
    is what example() makes. dtypes: those that pass as they are; "float" is any of them.
    """

    height: int | None = None
    width: int | None = None
    layouts: tuple[str, ...] = ("HWC",)
    dtypes: tuple[str, ...] = ("uint8",)
    doc: str = ""
    optional: bool = False

    def __str__(self) -> str:
        sizes = f", {self.height or '*'} x {self.width or '*'}" if self.height or self.width else ""
        return f"{' or '.join(self.dtypes)} image {'|'.join(self.layouts)}{sizes}"

    def read(self, value: Any, path: str) -> tuple[Array, int | None]:
        """Return `value` unchanged and its batch size (None: no client batch); raises BadObservation."""
        if not isinstance(value, np.ndarray) or not self._takes(value.dtype):
            raise BadObservation(path, str(self), _name_of(value) + _layout_of(value))
        for extra in (0, 1):
            sizes = value.shape[extra:]
            if any(_sizes_match(sizes, self._shape(layout)) for layout in self.layouts) and 0 not in sizes:
                if max(sizes) > _MAX_IMAGE_SIDE:
                    raise BadObservation(path, f"an image of at most {_MAX_IMAGE_SIDE} pixels a side", _name_of(value))
                return value, value.shape[0] if extra else None
        raise BadObservation(path, str(self), _name_of(value) + _layout_of(value))

    def example(self, batch: tuple[int, ...] = ()) -> Array:
        """A black image, with `batch` in front."""
        shape = tuple(_ANY_SIDE_EXAMPLE if size is None else size for size in self._shape(self.layouts[0]))
        return np.zeros(batch + shape, "float32" if self.dtypes[0] == "float" else self.dtypes[0])

    def describe(self) -> dict[str, Any]:
        """JSON-like description, for metadata."""
        sizes = {"height": self.height, "width": self.width}
        formats = {"layouts": list(self.layouts), "dtypes": list(self.dtypes)}
        return {"kind": "image", **sizes, **formats, "doc": self.doc}

    def _takes(self, dtype: np.dtype[Any]) -> bool:
        return dtype.name in self.dtypes or (dtype.kind == "f" and "float" in self.dtypes)

    def _shape(self, layout: str) -> tuple[int | None, ...]:
        sizes = {"H": self.height, "W": self.width, "C": 3, "1": 1}
        return tuple(sizes[axis] for axis in layout)


@dataclass(frozen=True)
class TextSpec:
    """One text, such as an instruction. default: used when the observation has none."""

    doc: str = ""
    default: str | None = None
    optional: bool = False

    def __str__(self) -> str:
        return "a text (str)"

    def read(self, value: Any, path: str) -> tuple[str, None]:
        """Return `value` if it is a str; raises BadObservation."""
        if not isinstance(value, str):
            raise BadObservation(path, str(self), _name_of(value))
        if len(value) > _MAX_TEXT:
            raise BadObservation(path, f"a text of at most {_MAX_TEXT} characters", f"{len(value)}")
        return value, None

    def example(self, batch: tuple[int, ...] = ()) -> str:
        """The default, or an empty text."""
        return self.default or ""

    def describe(self) -> dict[str, Any]:
        """JSON-like description, for metadata."""
        return {"kind": "text", "default": self.default, "doc": self.doc}


@dataclass(frozen=True)
class TextListSpec:
    """A list of texts; a single text is taken for a list of one."""

    doc: str = ""
    optional: bool = False

    def __str__(self) -> str:
        return "a list of texts (str)"

    def read(self, value: Any, path: str) -> tuple[list[str], None]:
        """Return `value` as a list of str; raises BadObservation."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise BadObservation(path, str(self), _name_of(value))
        return list(texts), None

    def example(self, batch: tuple[int, ...] = ()) -> list[str]:
        """A list of one empty text."""
        return [""]

    def describe(self) -> dict[str, Any]:
        """JSON-like description, for metadata."""
        return {"kind": "text list", "doc": self.doc}


LeafSpec: TypeAlias = ArraySpec | ImageSpec | TextSpec | TextListSpec
# Values are LeafSpecs or, nested, maps of them.
ObservationSpec: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ValidObservation:
    """An observation that meets its spec. batch_size: the client's own batch, None if it sent no batch axis."""

    observation: Observation
    batch_size: int | None = None
    unknown: tuple[str, ...] = ()  # keys that were dropped


@dataclass(frozen=True)
class PolicySpec:
    """What one policy takes and gives.

    observation: path -> leaf spec, possibly nested; None: anything decodable passes. action: one step's shape and
    dtype; None: any finite numbers pass. horizon: steps per chunk, None for a single action without that axis.
    max_batch: inputs per call. max_client_batch: the largest batch that one client may send as one request, 0: none.
    metadata: JSON-like facts for greetings. dialect: the family whose clients this policy usually serves. inline: one
    call takes well under 0.1 ms, so that it may run in the event loop.
    """

    name: str
    observation: ObservationSpec | None
    action: ArraySpec | None
    horizon: int | None = None
    max_batch: int = 1
    max_client_batch: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    dialect: str | None = None
    inline: bool = False

    def validate(self, observation: Observation) -> ValidObservation:
        """Check and cast an observation and give it the spec's nesting.

        Raises BadObservation with path, expected, got, and a did-you-mean for a key that is missing.
        """
        if self.observation is None:
            return ValidObservation(observation)
        found: dict[str, Any] = {}
        batches: dict[str, int | None] = {}
        for path, leaf in self.leaves.items():
            value = _look_up(observation, path)
            if value is _MISSING:
                value = _default(leaf)
                if value is _MISSING:
                    if leaf.optional:
                        continue
                    raise self._missing(path, leaf, observation)
                found[path] = value
                continue
            found[path], batch = leaf.read(value, path)
            if batch is not None and not self.max_client_batch:
                got = _name_of(value) + (_layout_of(value) if isinstance(leaf, ImageSpec) else "")
                raise BadObservation(path, str(leaf), got, "this policy takes one at a time")
            if not isinstance(leaf, (TextSpec, TextListSpec)):
                batches[path] = batch
        unknown = () if observation.keys() <= self.leaves.keys() else self._unknown(observation)
        return ValidObservation(self._nest(found), self._batch_size(batches), unknown)

    def example(self, batch_size: int | None = None) -> Observation:
        """An observation of zeros that meets the spec (an empty map without a spec), for warm-up and tests."""
        batch = () if batch_size is None else (batch_size,)
        return self._nest({path: leaf.example(batch) for path, leaf in self.leaves.items()})

    def check_actions(self, actions: Any, batch_size: int | None = None) -> Array:
        """Return a copy of `actions` in the spec's dtype; raises BadAction if they must not reach a robot.

        A copy, since a policy may write its next answer over this one before it is sent.
        Expected shape: (batch_size, horizon, *action.shape), without the axes that are None.
        """
        array: Array = np.array(actions)
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise BadAction(f"{self.name} answered {_name_of(actions)}, expected numbers")
        if self.action is not None:
            shape = tuple(size for size in (batch_size, self.horizon) if size is not None) + self.action.shape
            if not _sizes_match(array.shape, shape):
                wanted = describe(self.action.dtype, shape)
                raise BadAction(f"{self.name} answered {_name_of(array)}, expected {wanted}")
            array = self._cast_action(array, self.action.dtype)
        elif array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise BadAction(f"{self.name} answered NaN or Inf")
        return array

    def _cast_action(self, array: Array, dtype: str) -> Array:
        if array.dtype == dtype:
            return array
        with np.errstate(all="ignore"):  # the finite check that follows reports an overflow
            cast_array = array.astype(dtype)
        if cast_array.dtype.kind != "f" and (array.dtype.kind == "f" or not np.array_equal(cast_array, array)):
            raise BadAction(f"{self.name} answered {_name_of(array)}, expected {dtype}")
        return cast_array

    def describe(self) -> dict[str, Any]:
        """JSON-like description of observation and action, for metadata and people."""
        return {
            "observation": {path: leaf.describe() for path, leaf in self.leaves.items()},
            "action": self.action.describe() if self.action else None,
            "horizon": self.horizon,
        }

    @cached_property
    def leaves(self) -> Mapping[str, LeafSpec]:
        """The spec's leaves by path, nesting flattened."""
        return dict(_flatten(self.observation or {}))

    @cached_property
    def _is_flat(self) -> bool:
        return not any(isinstance(leaf, Mapping) for leaf in (self.observation or {}).values())

    def _nest(self, found: dict[str, Any]) -> Observation:
        return found if self._is_flat else _nest_like(self.observation or {}, found)

    def _batch_size(self, batches: Mapping[str, int | None]) -> int | None:
        sizes = set(batches.values())
        if len(sizes) > 1:
            got = ", ".join(f"{path}: {'none' if size is None else size}" for path, size in batches.items())
            raise BadObservation("", "the same batch axis on every array, or on none", f"batch sizes {got}")
        batch_size = sizes.pop() if sizes else None
        if batch_size is not None and batch_size > self.max_client_batch:
            path = next(path for path in self.leaves if path in batches)
            raise BadObservation(path, f"a batch of at most {self.max_client_batch}", f"{batch_size}")
        return batch_size

    def _missing(self, path: str, leaf: LeafSpec, observation: Observation) -> BadObservation:
        keys = tuple(islice(_paths(observation), _MAX_KEYS_TOLD))
        near = get_close_matches(path, [key for key in keys if key not in self.leaves], n=1, cutoff=0.5)
        got = f"keys {', '.join(keys)}"[:300] if keys else "no keys"
        return BadObservation(path, str(leaf), got, f"did you mean {path!r} by {near[0]!r}?" if near else "")

    def _unknown(self, observation: Observation) -> tuple[str, ...]:
        return tuple(path for path in _paths(observation) if path not in self.leaves)


def _flatten(spec: ObservationSpec, prefix: str = "") -> Iterable[tuple[str, LeafSpec]]:
    for key, leaf in spec.items():
        if isinstance(leaf, Mapping):
            yield from _flatten(cast(ObservationSpec, leaf), f"{prefix}{key}/")
        else:
            yield prefix + key, leaf


def _nest_like(spec: ObservationSpec, found: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, leaf in spec.items():
        if isinstance(leaf, Mapping):
            nested[key] = _nest_like(cast(ObservationSpec, leaf), found, f"{prefix}{key}/")
        elif prefix + key in found:
            nested[key] = found[prefix + key]
    return nested


def _paths(observation: Observation, prefix: str = "") -> Iterable[str]:
    for key, value in observation.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(cast(Observation, value), f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}"


_MISSING: Any = object()


def _look_up(observation: Observation, path: str) -> Any:
    """Find a path however the client nested it; raises BadObservation if it stands there twice."""
    head, separator, tail = path.partition("/")
    if not separator:
        return observation.get(path, _MISSING)
    places = [observation[path]] if path in observation else []
    while separator:
        inner = observation.get(head)
        if isinstance(inner, Mapping):
            value = _look_up(cast(Observation, inner), tail)
            if value is not _MISSING:
                places.append(value)
        step, separator, tail = tail.partition("/")
        head = f"{head}/{step}"
    if len(places) > 1:
        raise BadObservation(path, "one value", "two: a flat key and a nested one")
    return places[0] if places else _MISSING


def _default(leaf: LeafSpec) -> Any:
    if isinstance(leaf, TextSpec) and leaf.default is not None:
        return leaf.default
    return _MISSING


def _sizes_match(sizes: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    if sizes == shape:
        return True
    return len(sizes) == len(shape) and all(
        want is None or size == want for size, want in zip(sizes, shape, strict=True)
    )


def _filled(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(_ANY_SIZE_EXAMPLE if size is None else size for size in shape)


def _layout_of(value: Any) -> str:
    """What an array that was refused as an image looks like."""
    sizes = value.shape if isinstance(value, np.ndarray) else ()
    if 0 in sizes:
        return ", an image of 0 pixels"
    if len(sizes) == 2:
        return ", which looks like a gray HW image"
    if len(sizes) != 3:
        return ""
    for channels, kind in ((3, ""), (4, " with 4 channels (RGBA)"), (1, " with 1 channel")):
        if channels in (sizes[-1], sizes[0]):
            return f", which looks like {'HWC' if sizes[-1] == channels else 'CHW'}{kind}"
    return ""


def _name_of(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return describe(value.dtype, value.shape)
    return f"{type(value).__name__} {value!r:.40}" if isinstance(value, (str, int, float)) else type(value).__name__
