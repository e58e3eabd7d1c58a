"""Opens a torch program and calls it: rows of arrays in, rows of actions out, and what it remembers as a value.

What must stay true: a program is called by one thread at a time; what it remembers is copied in before a call and out
after it, so that no two sessions share a buffer; and no call hands out memory of the program's own.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.core.printable import type_name
from policyserve.policies.torch_files.archive import TorchFile
from policyserve.policies.torch_files.outputs import action_of
from policyserve.policies.torch_files.sizes import Input

# How a batch goes in: `stacked`, along a free first axis; `one` by one, with a first axis of 1; `bare`, without one.
Batching: TypeAlias = Literal["stacked", "one", "bare"]
# What one session remembers: a copy of each buffer that a call changes.
State: TypeAlias = tuple[Tensor, ...]

_SAFE, _UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_LONGEST = 300  # characters of torch's own words
_TRACEBACK = re.compile(r"^The following operation failed in the TorchScript interpreter\..*?(?=\w*Error: )")


class Place(NamedTuple):
    """A buffer of a program: the module that has it, and its name there."""

    owner: Any
    name: str


class Program:
    """A loaded program. call: tensors in the inputs' order -> what it gives. least, most: rows that a call may have.

    states: the buffers that a call changes, once find_states() was called. action: which output is the action, see
    outputs.py.
    """

    def __init__(
        self,
        module: Any,
        call: Callable[[Sequence[Tensor]], Any],
        inputs: tuple[Input, ...],
        device: torch.device,
        batching: Batching,
        *,
        action: str | None = None,
        least: int = 1,
        most: int | None = None,
    ) -> None:
        self.inputs, self.device, self.batching = inputs, device, batching
        self.least, self.most, self._action = least, most, action
        self.states: tuple[Place, ...] = ()
        self.initial: State = ()
        self._module, self._call = module, call

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Array]) -> Array:
        """The actions (N, …) of rows (N, …), in the inputs' order, for a program that remembers nothing."""
        count = len(rows[0])
        if self.batching == "stacked":
            return self._answer([self._tensor(array, self.least) for array in rows])[:count]
        return np.concatenate([self._one([array[row] for array in rows]) for row in range(count)])

    @torch.inference_mode()
    def step(self, row: Sequence[Array], state: State) -> tuple[Array, State]:
        """The action of one observation after what its session remembers, and what it remembers then."""
        self._put(state)
        return self._one(row)[0, ...], self._take()

    @torch.inference_mode()
    def find_states(self, rows: Sequence[Sequence[Array]]) -> None:
        """Find the buffers that calls with these observations change; raises ConfigError for a memory elsewhere."""
        reset = getattr(self._module, "reset", None)
        if callable(reset):
            reset()
        places = [
            Place(owner, name) for owner in self._module.modules() for name, _ in owner.named_buffers(recurse=False)
        ]
        self.states, self.initial = tuple(places), ()
        before = self.initial = self._take()
        changed: set[int] = set()
        for row in rows:
            after = self.step(row, before)[1]
            changed |= {place for place in range(len(places)) if not _are_equal(before[place], after[place])}
        self._put(before)
        self.states = tuple(places[place] for place in sorted(changed))
        self.initial = tuple(before[place] for place in sorted(changed))
        self._check_repeats(rows[0])

    def _check_repeats(self, row: Sequence[Array]) -> None:
        """Raise ConfigError for a program that remembers something outside its buffers."""
        found: list[Array] = []
        for _ in range(3):
            torch.manual_seed(0)
            found.append(self.step(row, self.initial)[0])
        if any(not np.array_equal(found[0], other, equal_nan=True) for other in found[1:]):
            if all(np.allclose(found[0], other, rtol=1e-4, atol=1e-5, equal_nan=True) for other in found[1:]):
                return  # what a GPU, or torch's own optimising after two calls, makes of one sum
            told = "it answers otherwise after the same requests: it remembers something outside its buffers"
            raise ConfigError(f"{told}; have it use register_buffer(), and export it again")

    def _put(self, state: State) -> None:
        for (owner, name), value in zip(self.states, state, strict=True):
            buffer = getattr(owner, name)
            if buffer.shape == value.shape:
                buffer.copy_(value)
            else:
                setattr(owner, name, value.clone())

    def _take(self) -> State:
        return tuple(getattr(owner, name).detach().clone() for owner, name in self.states)

    def _one(self, row: Sequence[Array]) -> Array:
        """The action of one observation, (1, …)."""
        if self.batching == "bare":
            return self._answer([self._tensor(array, 0) for array in row], is_bare=True)[None]
        return self._answer([self._tensor(array[None], self.least) for array in row])[:1]

    def _answer(self, tensors: Sequence[Tensor], is_bare: bool = False) -> Array:
        given = action_of(self._call(tensors), self._action)
        if not is_bare and (not given.ndim or len(given) != len(tensors[0])):
            count, got = len(tensors[0]), tuple(given.shape)
            raise ConfigError(f"expected an answer with a batch axis in front, ({count}, …), got the shape {got}")
        if given.is_floating_point():
            given = given.to(torch.float32)
        elif given.dtype == torch.bool:
            given = given.to(torch.int64)
        return np.array(given.cpu().numpy())

    def _tensor(self, array: Array, least: int) -> Tensor:
        """A copy, since a program may write into what it gets; the last row again where a call must have more."""
        if len(array) < least and least > 1:
            array = np.concatenate([array, np.repeat(array[-1:], least - len(array), axis=0)])
        return torch.tensor(array, device=self.device)


def open_script(file: TorchFile, inputs: tuple[Input, ...], device: torch.device, action: str | None) -> Program:
    """Load TorchScript, which runs code of the file; raises ConfigError for what torch refuses."""
    with _loading(file):
        module = torch.jit.load(str(file.path), map_location=device)
        if getattr(module, "training", False):
            module.eval()
    return Program(module, lambda tensors: module(*tensors), inputs, device, "stacked", action=action)


def open_export(file: TorchFile, device: torch.device, action: str | None) -> Program:
    """Load what torch.export.save() wrote; raises ConfigError for what torch refuses, or takes no tensors."""
    with _loading(file), _unpickling_tensors_alone():
        exported = torch.export.load(str(file.path))
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            exported = move_to_device_pass(exported, device)
        module = exported.module()
    spec: Any = exported.call_spec.in_spec
    shapes = _shapes(exported)
    inputs = tuple(
        Input(name, tuple(size if isinstance(size, int) else None for size in shape), dtype)
        for name, (shape, dtype) in zip(_names(exported), shapes, strict=True)
    )
    batching, symbol = _batching([shape for shape, _ in shapes])
    least, most = _range(exported.range_constraints.get(symbol))
    if batching != "bare":
        inputs = tuple(Input(one.name, one.shape[1:], one.dtype) for one in inputs)

    def call(tensors: Sequence[Tensor]) -> Any:
        positional, named = pytree.tree_unflatten(list(tensors), spec)
        return module(*positional, **named)

    return Program(module, call, inputs, device, batching, action=action, least=least, most=most)


def said_by(error: Exception) -> str:
    """What torch says, in one line."""
    text = _TRACEBACK.sub("", " ".join(str(error).split()))
    return text[:_LONGEST] or type_name(error)


@contextmanager
def _loading(file: TorchFile) -> Iterator[None]:
    """Turn what torch raises for a file into a ConfigError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that torch would rather have: the file is as it is
            yield
    except ConfigError:
        raise
    except Exception as error:  # torch, sympy and JSON raise whatever they do
        told = f"expected a {file.title} that torch {torch.__version__} can load"
        raise ConfigError(f"{told}, got one that it refuses: {said_by(error)}") from error


@contextmanager
def _unpickling_tensors_alone() -> Iterator[None]:
    """Close torch.export.load()'s fallback, which unpickles anything (pytorch #153410, open in torch 2.13)."""
    before = {name: os.environ.pop(name, None) for name in (_SAFE, _UNSAFE)}
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _shapes(exported: Any) -> list[tuple[tuple[Any, ...], str]]:
    """Shape and dtype of each input, in order; a size that is free is torch's symbol."""
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    found: list[tuple[tuple[Any, ...], str]] = []
    for name in exported.graph_signature.user_inputs:
        value = values.get(name)
        if not isinstance(value, Tensor):
            raise ConfigError(f"input {name}: expected a tensor, got {type_name(value)}: export it with tensors alone")
        sizes = tuple(size if isinstance(size, int) else size.node.expr for size in value.shape)
        found.append((sizes, str(value.dtype).removeprefix("torch.")))
    if not found:
        raise ConfigError("expected tensors to observe, got a program that takes none")
    return found


def _names(exported: Any) -> list[str]:
    """What the inputs are called: by their key where they are in a map, else by the graph."""
    own = list(exported.graph_signature.user_inputs)
    tree = pytree.tree_unflatten(list(range(len(own))), exported.call_spec.in_spec)
    paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    keys = [path[-1].key if isinstance(path[-1], pytree.MappingKey) else None for path in paths]
    names = [key if isinstance(key, str) else name for key, name in zip(keys, own, strict=True)]
    return names if len(set(names)) == len(names) else own


def _batching(shapes: Sequence[tuple[Any, ...]]) -> tuple[Batching, Any]:
    """How rows go in, and the symbol of the batch's size."""
    if any(not shape for shape in shapes):
        return "bare", None
    firsts = [shape[0] for shape in shapes]
    free = {size for size in firsts if not isinstance(size, int)}
    if len(free) == 1 and len(free) == len(set(firsts)):
        return "stacked", free.pop()
    if all(size == 1 or not isinstance(size, int) for size in firsts):
        return "one", None
    if len(set(firsts)) == 1 and all(len(shape) > 1 for shape in shapes):
        cure = "export it with a batch of 1, or with a free first axis (dynamic_shapes)"
        raise ConfigError(f"a batch of {firsts[0]} that is fixed; {cure}")
    return "bare", None


def _range(allowed: Any) -> tuple[int, int | None]:
    """The smallest and largest number of rows; None: as many as one likes."""
    if allowed is None:
        return 1, None
    most = int(allowed.upper) if allowed.upper.is_Integer else None
    return max(1, int(allowed.lower)), most


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
