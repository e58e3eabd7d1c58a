"""Writes the spec of a policy that declares none, as Python to paste, from one observation and its answer. Pure.

What must stay true: the spec takes the observation that it was made from, and gives it to the policy in the same
nesting. What no spec can take (None, bytes, lists of maps) is left out by name.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadObservation
from policyserve.core.leaf_specs import ArraySpec, ImageSpec, LeafSpec, TextListSpec, TextSpec, array_of_list
from policyserve.core.printable import one_line, type_name
from policyserve.core.spec import PolicySpec

MOST_VALUES = 64  # of an observation: a spec of more is nothing that people paste
_BARE = "obs"  # what vibe_rl's clients call an array that they send alone
_COLOURS = 3
_COLUMNS = 80


@dataclass(frozen=True)
class SeenObservation:
    """What one observation had. leaves: nested as it was. left_out: path and type of what no spec takes.

    is_bare: it was an array alone, which a policy with a spec gets in a map.
    """

    leaves: Mapping[str, Any]
    left_out: tuple[tuple[str, str], ...] = ()
    is_bare: bool = False


@dataclass(frozen=True)
class SeenPolicy:
    """What a policy was seen to take and give."""

    name: str
    observation: SeenObservation
    action: ArraySpec
    horizon: int | None

    @cached_property
    def spec(self) -> PolicySpec:
        """The spec that its source writes."""
        return PolicySpec(self.name, self.observation.leaves, self.action, self.horizon)

    @property
    def facts(self) -> Mapping[str, int]:
        """What a greeting can tell of it, by the names that Wall-X's clients know; nothing of a batch of chunks."""
        if len(self.action.shape) != 1 or self.action.shape[0] is None:
            return {}
        return {"action_dim": self.action.shape[0], "pred_horizon": self.horizon or 1}

    @property
    def taken(self) -> list[str]:
        """Each value of the observation: `state float64 (8,)`."""
        taken = [f"{one_line(path, 80)} {_described(leaf)}" for path, leaf in self.spec.leaves.items()]
        return [*taken, *(f"{one_line(path, 80)} {kind}" for path, kind in self.observation.left_out)] or ["nothing"]

    @property
    def given(self) -> str:
        """The answer: `actions float32 (50, 32)`."""
        steps = () if self.horizon is None else (self.horizon,)
        return f"actions {ArraySpec((*steps, *self.action.shape), self.action.dtype)}"

    def __str__(self) -> str:
        """What was seen, on one line: `state float64 (8,), prompt text -> actions float32 (50, 32)`."""
        return f"{', '.join(self.taken)} -> {self.given}"

    def source(self) -> str:
        """A module's text that has it as `spec`, and says how to use it."""
        kinds = {"PolicySpec", "ArraySpec", *(type(leaf).__name__ for leaf in self.spec.leaves.values())}
        lines = [
            f"from policyserve import {', '.join(sorted(kinds))}, as_policy",
            "",
            "spec = PolicySpec(",
            f"    {_quoted(self.name)},",
            "    observation={",
            *_entries(self.observation.leaves, " " * 8),
            *(
                f"        # no spec takes a {kind}: {_quoted(path)} is dropped"
                for path, kind in self.observation.left_out
            ),
            "    },",
            f"    action={_source_of(self.action)},",
            *([] if self.horizon is None else [f"    horizon={self.horizon},"]),
            ")",
            *self._use(),
        ]
        return "\n".join(lines) + "\n"

    def _use(self) -> list[str]:
        """Comments that say what to do with the spec."""
        served = self.name if self.name.isidentifier() else "it"
        if self.observation.is_bare:
            called = f'{served}(observation["{_BARE}"])'
            why = "# With a spec a policy gets a map, where this one got an array alone. Then serve:"
            return [why, f"# policy = as_policy(lambda observation: {called}, spec)"]
        why = f"Then serve this in place of {served}, with {served}() if it is a class:"
        comment = textwrap.wrap(why, _COLUMNS, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
        return [*comment, f"# policy = as_policy({served}, spec)"]


def seen_observation(observation: Any) -> SeenObservation:
    """Describe an observation as a policy without a spec gets it; what is read of its values is kinds and shapes.

    Raises BadObservation if it has more values than anybody would paste, or the same path twice.
    """
    if not isinstance(observation, Mapping):
        leaf = _leaf_of(observation)
        if leaf is None:
            raise BadObservation("", "a map or an array", type_name(observation))
        return SeenObservation({_BARE: leaf}, is_bare=True)
    left_out: list[tuple[str, str]] = []
    seen = SeenObservation(_leaves_of(cast("Mapping[str, Any]", observation), "", left_out), tuple(left_out))
    PolicySpec("seen", seen.leaves, None).validate(observation)
    return seen


def seen_policy(name: str, observation: SeenObservation, actions: Array) -> SeenPolicy:
    """Put together what was taken and what was given: the first of several axes of actions is the horizon."""
    horizon = actions.shape[0] if actions.ndim > 1 else None
    shape = actions.shape if horizon is None else actions.shape[1:]
    return SeenPolicy(name, observation, ArraySpec(shape, _dtype_of(actions)), horizon)


def _leaves_of(observation: Mapping[str, Any], prefix: str, left_out: list[tuple[str, str]]) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in observation.items():
        path = prefix + key
        if isinstance(value, Mapping) and value:
            inner = _leaves_of(cast("Mapping[str, Any]", value), f"{path}/", left_out)
            if inner:
                leaves[key] = inner
        elif (leaf := _leaf_of(value)) is not None:
            leaves[key] = leaf
        else:
            left_out.append((path, type_name(value)))
        if len(leaves) + len(left_out) > MOST_VALUES:
            raise BadObservation(prefix, f"at most {MOST_VALUES} values in a map", "more")
    return leaves


def _leaf_of(value: Any) -> LeafSpec | None:
    """The spec that takes this value as it is; None if there is none."""
    if isinstance(value, str):
        return TextSpec()
    if isinstance(value, (list, tuple)):
        return _leaf_of_list(cast("list[Any]", value))
    if not isinstance(value, (np.ndarray, np.generic, int, float)):
        return None
    array: Array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        return None
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == _COLOURS and array.size:
        return ImageSpec(array.shape[0], array.shape[1])
    return ArraySpec(array.shape, _dtype_of(array))


def _leaf_of_list(value: list[Any]) -> LeafSpec | None:
    if not value:
        return None
    if all(isinstance(one, str) for one in value):
        return TextListSpec()
    try:
        return _leaf_of(array_of_list(value, "", "numbers"))
    except BadObservation:
        return None


def _dtype_of(array: Array) -> str:
    return array.dtype.newbyteorder("=").name


def _described(leaf: LeafSpec) -> str:
    if isinstance(leaf, ImageSpec):
        return str(ArraySpec((leaf.height, leaf.width, _COLOURS), leaf.dtypes[0]))
    if isinstance(leaf, ArraySpec):
        return str(leaf)
    return "text" if isinstance(leaf, TextSpec) else "texts"


def _entries(leaves: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, leaf in leaves.items():
        if isinstance(leaf, Mapping):
            yield f"{indent}{_quoted(key)}: {{"
            yield from _entries(cast("Mapping[str, Any]", leaf), indent + " " * 4)
            yield f"{indent}}},"
        else:
            yield f"{indent}{_quoted(key)}: {_source_of(leaf)},"


def _source_of(leaf: LeafSpec) -> str:
    if isinstance(leaf, ImageSpec):
        return f"ImageSpec({leaf.height}, {leaf.width})"
    if isinstance(leaf, ArraySpec):
        shape = repr(leaf.shape)
        return f"ArraySpec({shape})" if leaf.dtype == "float32" else f'ArraySpec({shape}, "{leaf.dtype}")'
    return f"{type(leaf).__name__}()"


def _quoted(text: str) -> str:
    """A Python literal of it, in double quotes where that needs no more escapes; what is not printable is escaped."""
    written = repr(str.__str__(text))
    return written if '"' in written or "\\" in written else f'"{written[1:-1]}"'
