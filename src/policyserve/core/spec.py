"""What a policy takes and gives, and the checks at both ends.

A spec's keys are paths: `observation/image` is met by the flat key of that name and by `{"observation": {"image": …}}`
alike, and both at once are refused. The policy receives the nesting that its spec has. One leading dimension more
than the spec's, the same on every array, is the client's own batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.encoded_images import check_images
from policyserve.core.errors import BadAction, BadObservation, names_told
from policyserve.core.leaf_specs import (
    ArraySpec,
    ImageSpec,
    LeafSpec,
    ShortRepr,
    TextListSpec,
    TextSpec,
    check_texts,
    is_whole,
    layout_of,
    name_of,
    require,
    sizes_match,
)
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Observation
from policyserve.core.nearest import nearest_path

__all__ = ["ArraySpec", "ImageSpec", "LeafSpec", "PolicySpec", "TextListSpec", "TextSpec", "ValidObservation"]

_MAX_KEYS_TOLD = 64  # of an observation that lacks one; comparing thousands would hold the event loop up
_MAX_UNKNOWN = 10  # keys that are told of those that were dropped
_LEAVES = "a spec such as ArraySpec((7,)), ImageSpec(224, 224) or TextSpec()"


# Values are LeafSpecs or, nested, maps of them.
ObservationSpec: TypeAlias = Mapping[str, Any]


class ValidObservation(NamedTuple):
    """An observation that meets its spec. batch_size: the client's own batch, None if it sent no batch axis."""

    observation: Observation | Any
    batch_size: int | None = None
    unknown: tuple[str, ...] = ()  # the first ten keys that were dropped
    footprint: int = 0  # bytes that it takes besides its message
    is_encoded: bool = False  # pictures among it are JPEGs still


@dataclass(frozen=True, repr=False)
class PolicySpec(ShortRepr):
    """What one policy takes and gives.

    observation: path -> leaf spec, possibly nested; None: anything decodable passes. action: one step's shape and
    dtype; None: any finite numbers pass. horizon: steps per chunk, None for a single action without that axis.
    max_batch: inputs per call. max_client_batch: the largest batch that one client may send as one request, 0: none.
    metadata: JSON-like facts for greetings. dialect: the family whose clients this policy usually serves. inline: one
    call takes well under 0.1 ms, so that it may run in the event loop. aliases: other names under which a client may
    send what the observation has at a path, name -> path.
    Raises ConfigError that names what is wrong in it, expected and got.
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
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_map = self.observation is None or isinstance(self.observation, Mapping)
        require(is_map, "PolicySpec's observation", "a map from paths to specs, or None", self.observation)
        for path, leaf in _flatten(self.observation or {}):
            require(isinstance(leaf, LeafSpec), f"PolicySpec's observation {path!r}", _LEAVES, leaf)
        is_action = self.action is None or isinstance(self.action, ArraySpec)
        require(is_action, "PolicySpec's action", "a spec such as ArraySpec((7,)), or None", self.action)
        is_horizon = self.horizon is None or is_whole(self.horizon, 1)
        require(is_horizon, "PolicySpec's horizon", "1 or more actions, or None", self.horizon)
        require(is_whole(self.max_batch, 1), "PolicySpec's max_batch", "1 or more", self.max_batch)
        require(is_whole(self.max_client_batch, 0), "PolicySpec's max_client_batch", "0 or more", self.max_client_batch)
        for name, path in self.aliases.items():
            is_alias = path in self.leaves and name not in self.leaves
            require(is_alias, f"PolicySpec's alias {name!r}", "a new name for one of the observation's paths", path)

    def validate(self, observation: Observation, limits: WireLimits = DEFAULT_LIMITS) -> ValidObservation:
        """Check and cast an observation and give it the spec's nesting.

        Raises BadObservation with path, expected, got, and a did-you-mean for a key that is missing.
        """
        if self.observation is None:
            check_texts(observation, "", limits)
            check_images(observation, "", limits)
            return ValidObservation(observation)
        found: dict[str, Any] = {}
        batches: dict[str, int | None] = {}
        for path, leaf in self.leaves.items():
            value = self.look_up(observation, path)
            if value is MISSING:
                value = _default(leaf)
                if value is MISSING:
                    if leaf.optional:
                        continue
                    raise self._missing(path, leaf, observation)
                found[path] = value
                continue
            found[path], batch = leaf.read(value, path)
            if batch is not None and not self.max_client_batch:
                got = name_of(value) + (layout_of(value) if isinstance(leaf, ImageSpec) else "")
                raise BadObservation(path, str(leaf), got, "this policy takes one at a time")
            if isinstance(leaf, (TextSpec, TextListSpec)):
                check_texts(found[path], path, limits)
                continue
            batches[path] = batch
            if isinstance(leaf, ImageSpec):
                leaf.check_limits(found[path], batch, path, limits)
        unknown = () if observation.keys() <= self._known else self._unknown(observation)
        return ValidObservation(self._nest(found), self._batch_size(batches), unknown)

    def look_up(self, observation: Observation, path: str) -> Any:
        """What an observation has at a path, or under one of its aliases, else MISSING.

        Raises BadObservation if it has it twice.
        """
        found = look_up(observation, path)
        for alias in self._aliases_of.get(path, ()) if self.aliases else ():
            value = look_up(observation, alias)
            if value is MISSING:
                continue
            if found is not MISSING:
                raise BadObservation(path, "one value", f"two: {path} and {alias}, which is another name of it")
            found = value
        return found

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
        if array.dtype == self._action_dtype and array.shape == self._action_shape and batch_size is None:
            pass  # most answers need no cast, and this test is quick
        elif array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise BadAction(f"{self.name} answered {name_of(actions)}, expected numbers")
        elif self.action is not None:
            shape = tuple(size for size in (batch_size, self.horizon) if size is not None) + self.action.shape
            if not sizes_match(array.shape, shape):
                wanted = describe(self.action.dtype, shape)
                raise BadAction(f"{self.name} answered {name_of(array)}, expected {wanted}")
            array = self._cast_action(array, self.action.dtype)
        elif array.dtype.kind not in "biuf":
            array = array.astype(np.float32)
        if array.dtype.kind not in "biu" and not _all_finite(array):
            raise BadAction(f"{self.name} answered NaN or Inf")
        return array

    def _cast_action(self, array: Array, dtype: str) -> Array:
        if array.dtype == dtype:
            return array
        with np.errstate(all="ignore"):  # the finite check that follows reports an overflow
            cast_array = array.astype(dtype)
        if cast_array.dtype.kind != "f" and (array.dtype.kind == "f" or not np.array_equal(cast_array, array)):
            raise BadAction(f"{self.name} answered {name_of(array)}, expected {dtype}")
        return cast_array

    def describe(self) -> dict[str, Any]:
        """JSON-like description of observation and action, for metadata and people."""
        return {
            "observation": {path: leaf.describe() for path, leaf in self.leaves.items()},
            "action": self.action.describe() if self.action else None,
            "horizon": self.horizon,
            **({"aliases": dict(self.aliases)} if self.aliases else {}),
        }

    @cached_property
    def leaves(self) -> Mapping[str, LeafSpec]:
        """The spec's leaves by path, nesting flattened."""
        return dict(_flatten(self.observation or {}))

    @cached_property
    def _known(self) -> frozenset[str]:
        """All names that a client may use."""
        return frozenset((*self.leaves, *self.aliases))

    @cached_property
    def _aliases_of(self) -> Mapping[str, list[str]]:
        """The other names of each path that has some."""
        found: dict[str, list[str]] = {}
        for name, path in self.aliases.items():
            found.setdefault(path, []).append(name)
        return found

    @cached_property
    def _action_shape(self) -> tuple[int | None, ...] | None:
        """Of a chunk without a client's batch."""
        steps = () if self.horizon is None else (self.horizon,)
        return None if self.action is None else steps + self.action.shape

    @cached_property
    def _action_dtype(self) -> np.dtype[Any] | None:
        return None if self.action is None else np.dtype(self.action.dtype)

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
        keys = tuple(islice(paths_in(observation), _MAX_KEYS_TOLD))
        near = nearest_path(path, [key for key in keys if key not in self.leaves], 0.5)
        got = f"keys {names_told(keys, 300)}" if keys else "no keys"
        hint = f"did you mean {path!r} by {near!r}? --map {near}={path} has the server take it so" if near else ""
        return BadObservation(path, str(leaf), got, hint)

    def _unknown(self, observation: Observation) -> tuple[str, ...]:
        return tuple(islice((path for path in paths_in(observation) if path not in self._known), _MAX_UNKNOWN))


def checkpoint_of(metadata: Mapping[str, Any]) -> Any:
    """Which checkpoint a policy's metadata name; empty where they name none."""
    return metadata.get("checkpoint", metadata.get("checkpoint_step", ""))


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


def paths_in(observation: Observation, prefix: str = "") -> Iterable[str]:
    """The paths of an observation's values, nesting flattened."""
    for key, value in observation.items():
        if isinstance(value, Mapping) and value:
            yield from paths_in(cast(Observation, value), f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}"


MISSING: Any = object()  # what look_up() gives for a path that is not there


def look_up(observation: Observation, path: str) -> Any:
    """Find a path however the client nested it, else MISSING; raises BadObservation if it stands there twice."""
    head, separator, tail = path.partition("/")
    if not separator:
        return observation.get(path, MISSING)
    places = [observation[path]] if path in observation else []
    while separator:
        inner = observation.get(head)
        if isinstance(inner, Mapping):
            value = look_up(cast(Observation, inner), tail)
            if value is not MISSING:
                places.append(value)
        step, separator, tail = tail.partition("/")
        head = f"{head}/{step}"
    if len(places) > 1:
        raise BadObservation(path, "one value", "two: a flat key and a nested one")
    return places[0] if places else MISSING


def _all_finite(array: Array) -> bool:
    # If the sum of squares is finite, every value is. It overflows for large values: then each value is looked at.
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())


def _default(leaf: LeafSpec) -> Any:
    if isinstance(leaf, TextSpec) and leaf.default is not None:
        return leaf.default
    return MISSING
