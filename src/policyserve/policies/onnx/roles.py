"""What each input and output of an ONNX model is to a policy: observation, action, state of a session, or neither.

Pure: it sees names, dtypes and shapes. A size that the model leaves free is its name, or None where it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

from policyserve.core.arrays import describe
from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest

Size: TypeAlias = int | str | None
# How a batch goes in: `stacked`, along a free first axis; `one` by one, with a first axis of 1; `bare`, without one.
Batching: TypeAlias = Literal["stacked", "one", "bare"]

COUNTER = "time_step"  # what mjlab's tracking policies call the step of the motion
_ACTIONS = ("actions", "action", "action_chunk")
_MOST_NUMBERS = 1 << 28  # of one input or state: a gibibyte of float32
_MOST_TOLD = 8


@dataclass(frozen=True)
class Tensor:
    """An input or output, as the file declares it. dtype: NumPy's name of it."""

    name: str
    dtype: str
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return (
            f"{self.name} {describe(self.dtype, tuple(size if isinstance(size, int) else None for size in self.shape))}"
        )


@dataclass(frozen=True)
class Pair:
    """A state of the session: what comes out goes in the next time. axis: where rows are joined; None: nowhere."""

    into: Tensor
    out: Tensor
    axis: int | None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """One session's, with the batch axis, whose size is 1."""
        return tuple(size if isinstance(size, int) else 1 for size in self.into.shape)


@dataclass(frozen=True)
class Roles:
    """What each is. counter: filled with the session's count of requests, unless a client sends it."""

    inputs: tuple[Tensor, ...]
    counter: Tensor | None
    pairs: tuple[Pair, ...]
    action: Tensor
    extras: tuple[Tensor, ...]
    batching: Batching

    @property
    def remembers(self) -> bool:
        """Whether an answer depends on the session's requests before."""
        return bool(self.pairs) or self.counter is not None

    def row_shape(self, tensor: Tensor) -> tuple[int | None, ...]:
        """An input's shape in one observation; None for a size that the model leaves free."""
        sizes = tensor.shape if self.batching == "bare" else tensor.shape[1:]
        return tuple(size if isinstance(size, int) else None for size in sizes)


def find_roles(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], action: str | None = None, state: str | None = None
) -> Roles:
    """Decide by names and shapes; raises ConfigError that names the flag which decides otherwise.

    action: the output that is the action; None: by its name, or the only one. state: the pairs `in=out` by commas, or
    `none`; None: by their names (h_in and h_out, past_x and present_x).
    """
    if not inputs or not outputs:
        raise ConfigError("expected inputs and outputs, got a model without one of them")
    pairs = _named_pairs(inputs, outputs) if state is None else _given_pairs(inputs, outputs, state)
    states = {name for into, out in pairs for name in (into.name, out.name)}
    ordinary = [tensor for tensor in inputs if tensor.name not in states]
    others = [tensor for tensor in outputs if tensor.name not in states]
    chosen = _action(outputs if action is not None else others, action)
    counter = next((one for one in ordinary if one.name == COUNTER and _is_one_number(one)), None)
    observed = [one for one in ordinary if one is not counter]
    if not observed:
        observed, counter = ordinary, None
    if not observed:
        raise ConfigError("every input is a state, and none an observation: say which are with --state in=out, or none")
    batching = _batching([one for one in (*observed, counter) if one is not None], chosen)
    symbol = observed[0].shape[0] if batching == "stacked" else None
    joined = [Pair(into, out, _batch_axis(into, symbol, batching)) for into, out in pairs]
    if batching == "stacked" and any(pair.axis is None for pair in joined):
        batching = "one"
    for pair in joined:
        _check_state(pair, symbol)
    for tensor in (*observed, *(pair.into for pair in joined)):
        _check_size(tensor)
    extras = tuple(one for one in others if one is not chosen)
    return Roles(tuple(observed), counter, tuple(joined), chosen, extras, batching)


def _named_pairs(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    by_name = {tensor.name: tensor for tensor in outputs}
    found: list[tuple[Tensor, Tensor]] = []
    for into in inputs:
        out = by_name.get(_partner(into.name))
        if out is not None and _are_alike(into, out):
            found.append((into, out))
    return found


def _partner(name: str) -> str:
    """What the output of a state is called whose input has this name; empty if it is no state's."""
    if name.endswith("_in"):
        return f"{name.removesuffix('_in')}_out"
    return f"present_{name.removeprefix('past_')}" if name.startswith("past_") else ""


def _given_pairs(inputs: Sequence[Tensor], outputs: Sequence[Tensor], state: str) -> list[tuple[Tensor, Tensor]]:
    if state.strip() == "none":
        return []
    found: list[tuple[Tensor, Tensor]] = []
    for pair in state.split(","):
        into_name, equals, out_name = (part.strip() for part in pair.partition("="))
        if not (into_name and equals and out_name):
            raise ConfigError(f"--state: expected in=out, by commas, or none, got {pair.strip() or 'nothing'!r}")
        into, out = _find(inputs, into_name, "--state", "input"), _find(outputs, out_name, "--state", "output")
        if not _are_alike(into, out):
            raise ConfigError(f"--state: expected a pair of one dtype and as many axes, got {into} and {out}")
        if any(into is one or out is other for one, other in found):
            raise ConfigError(f"--state: {into_name} or {out_name} is there twice")
        found.append((into, out))
    return found


def _are_alike(into: Tensor, out: Tensor) -> bool:
    return into.dtype == out.dtype and len(into.shape) == len(out.shape)


def _find(tensors: Sequence[Tensor], name: str, flag: str, kind: str) -> Tensor:
    by_name = {tensor.name: tensor for tensor in tensors}
    if name not in by_name:
        near = nearest(name, by_name)
        hint = f" (did you mean {near}?)" if near else ""
        raise ConfigError(f"{flag}: expected an {kind} of the model, {_told(tensors)}, got {name!r}{hint}")
    return by_name[name]


def _action(outputs: Sequence[Tensor], name: str | None) -> Tensor:
    if name is not None:
        return _find(outputs, name, "--action", "output")
    by_name = {tensor.name: tensor for tensor in outputs}
    usual = next((by_name[one] for one in _ACTIONS if one in by_name), None)
    if usual is not None:
        return usual
    if len(outputs) != 1:
        said = f"outputs {_told(outputs)}: say which with --action" if outputs else "every output is a state"
        raise ConfigError(
            f"{said}; an action is called {', '.join(_ACTIONS[:-1])} or {_ACTIONS[-1]}, or is the only output"
        )
    return outputs[0]


def _told(tensors: Sequence[Tensor]) -> str:
    more = f" and {len(tensors) - _MOST_TOLD} more" if len(tensors) > _MOST_TOLD else ""
    return ", ".join(map(str, tensors[:_MOST_TOLD])) + more


def _is_one_number(tensor: Tensor) -> bool:
    return prod(size if isinstance(size, int) else 1 for size in tensor.shape) == 1


def _batching(observed: Sequence[Tensor], action: Tensor) -> Batching:
    if any(not one.shape for one in observed) or not action.shape:
        return "bare"
    firsts = [one.shape[0] for one in observed]
    if not any(isinstance(size, int) for size in firsts):
        return "stacked"
    if all(size == 1 or not isinstance(size, int) for size in firsts):
        return "one"
    if len(set(firsts)) == 1 and all(len(one.shape) > 1 for one in observed) and action.shape[0] == firsts[0]:
        told = f"{observed[0]}: a batch of {firsts[0]} that is fixed"
        raise ConfigError(f"{told}; export it with a batch of 1, or with a free first axis (dynamic_axes)")
    return "bare"


def _batch_axis(state: Tensor, symbol: Size, batching: Batching) -> int | None:
    """Where a state has the batch: the axis with the same free size as the observation's first."""
    axes = [axis for axis, size in enumerate(state.shape) if not isinstance(size, int) and size == symbol]
    return axes[0] if batching == "stacked" and len(axes) == 1 else None


def _check_state(pair: Pair, symbol: Size) -> None:
    free = [size for size in pair.into.shape if not isinstance(size, int)]
    if len(free) > 1 or any(size != symbol for size in free if symbol is not None):
        told = f"{pair.into}: a state whose size is free, so that nobody knows what it begins with"
        raise ConfigError(f"{told}; export it with its size, or say --state none")


def _check_size(tensor: Tensor) -> None:
    if prod(size for size in tensor.shape if isinstance(size, int)) > _MOST_NUMBERS:
        raise ConfigError(f"{tensor}: expected at most {_MOST_NUMBERS} numbers in one input")
