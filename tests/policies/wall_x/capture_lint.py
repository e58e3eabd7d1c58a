"""Finds what a CUDA graph would refuse to record, or would freeze at its first value, on a machine without a GPU.

A graph is a list of kernels with the addresses that they had when it was recorded. So the recorded work may ask no
tensor for a number, may make nothing on the host, may draw no random number, and may read only what stays where it
is: parameters, constants of the object that runs it, and the state that later batches are copied into.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import policyserve
from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")
dispatching = import_or_skip("torch.utils._python_dispatch")
pytree = import_or_skip("torch.utils._pytree")

_ASKS_THE_HOST = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "nonzero_static", "masked_select",
    "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc",
}  # fmt: skip
_BORN_ON_THE_HOST = {"lift", "lift_fresh", "_pin_memory", "from_file"}
_RANDOM = ("rand", "normal", "uniform", "bernoulli", "exponential", "multinomial", "native_dropout")
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_UPLOADS = {"_to_copy", "copy_"}


class CaptureLint(dispatching.TorchDispatchMode):
    """Watches every operation while it is entered. stays: the tensors that are where they are for as long as the graph.

    faults: what it saw, with the line of policyserve's code. trace: the operations, to be compared with another run's.
    """

    def __init__(self, stays: Iterable[Any]) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.trace: list[tuple[Any, ...]] = []
        self._kept = list(stays)  # all tensors: the address of one that was freed could be another's
        self._known = {_storage_of(tensor) for tensor in self._kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # an operation that consists of others is seen as these: one of them may ask for a number
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        name = func.overloadpacket.__name__
        tensors = list(_tensors_in((args, kwargs)))
        self._check(name, args, tensors)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors_in(result):
            self._kept.append(tensor)
            self._known.add(_storage_of(tensor))
        self.trace.append((name, *(_form_of(tensor) for tensor in [*tensors, *_tensors_in(result)])))
        return result

    def _check(self, name: str, args: Any, tensors: list[Any]) -> None:
        if name in _ASKS_THE_HOST:
            self._fault(f"{name} needs a number on the host")
        if name == "repeat_interleave":  # by a tensor of counts: any other is made of other operations
            self._fault("repeat_interleave needs a number on the host")
        if name in _BORN_ON_THE_HOST:
            self._fault(f"{name}: a tensor is made on the host")
        if name.startswith(_RANDOM):
            self._fault(f"{name} draws random numbers")
        if name in _INDEXED and any(one.dtype in (torch.bool, torch.uint8) for one in _tensors_in(args[1])):
            self._fault(f"{name} by a mask: how much it gives depends on numbers")
        if len({tensor.device for tensor in tensors}) > 1:
            self._fault(f"{name} of tensors on {', '.join(sorted({str(tensor.device) for tensor in tensors}))}")
        for tensor in tensors:
            if _storage_of(tensor) not in self._known:
                self._known.add(_storage_of(tensor))
                self._fault(f"{name} reads a tensor {tuple(tensor.shape)} that nothing keeps where it is")

    def _fault(self, what: str) -> None:
        self.faults.append(f"{what}, at {_place()}")


def faults_of(work: Callable[[], object], stays: Iterable[Any]) -> list[str]:
    """What speaks against recording this work. It runs three times: first plainly, as before a recording."""
    stays = list(stays)
    work()
    runs = [CaptureLint(stays), CaptureLint(stays)]
    for run in runs:
        with run:
            work()
    first, second = (run.trace for run in runs)
    differing = next((place for place, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    if differing is not None:
        return [*runs[0].faults, f"two runs differ: {first[differing]} and then {second[differing]}"]
    if len(first) != len(second):
        return [*runs[0].faults, f"two runs differ: {len(first)} operations and then {len(second)}"]
    return runs[0].faults


def linted(kind: type[Any], name: str) -> type[Any]:
    """A sampler's class whose method `name`, what it has recorded, is examined at each call with a state.

    An object of it has `faults`, and answers as the plain class does.
    """
    method = getattr(kind, name)

    def examine(self: Any, state: Any, *args: Any, **more: Any) -> Any:
        inside = [tensor for tensor, _ in state.tensors()]
        before = [tensor.clone() for tensor in inside]
        method(self, state, *args, **more)  # the plain run before a recording, in which a state may make its constants
        constants = [*_constants_of(self), *_constants_of(state)]
        stays = [*inside, *self.network.parameters(), *self.network.buffers(), *constants]
        self.faults += faults_of(lambda: method(self, state, *args, **more), stays)
        for tensor, value in zip(inside, before, strict=True):
            tensor.copy_(value)
        return method(self, state, *args, **more)

    def begin(self: Any, *args: Any, **more: Any) -> None:
        self.faults = []
        kind.__init__(self, *args, **more)

    return type(f"Linted{kind.__name__}", (kind,), {name: examine, "__init__": begin})


class DeviceLint(dispatching.TorchDispatchMode):
    """Refuses operations, other than uploads, whose tensors lie on several devices, with an AssertionError."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        devices = {str(tensor.device) for tensor in _tensors_in((args, kwargs))}
        if len(devices) > 1 and name not in _UPLOADS:
            raise AssertionError(f"{name} of tensors on {', '.join(sorted(devices))}, at {_place()}")
        return func(*args, **(kwargs or {}))


def _constants_of(owner: Any) -> Iterator[Any]:
    """Tensors that an object keeps as long as itself, in its attributes, plain containers and dataclasses there."""
    for value in vars(owner).values():
        yield from _tensors_in(value)
        if is_dataclass(value):
            yield from _constants_of(value)


def _tensors_in(values: Any) -> Iterator[Any]:
    return (value for value in pytree.tree_leaves(values) if isinstance(value, torch.Tensor))


def _storage_of(tensor: Any) -> int:
    return tensor.untyped_storage()._cdata


def _form_of(tensor: Any) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


def _place() -> str:
    """The innermost line of policyserve's code or of a test's."""
    homes = (str(Path(policyserve.__file__).parent), str(Path(__file__).parent))
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(homes)]
    found = next(frame for frame in reversed(frames) if frame.filename != __file__)
    return f"{Path(found.filename).name}:{found.lineno}, {found.line}"
