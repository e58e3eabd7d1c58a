"""The arrays of a state dict that torch saved: a zip of a pickle, `data.pkl`, and of raw numbers, `data/0` and so on.

The pickle may name an OrderedDict, tensors and their storages, and nothing else. A tensor is a view of its storage.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError
from policyserve.policies.sb3.numpy_values import map_of, sizes_of, whole_number
from policyserve.policies.sb3.pickles import PERSISTENT, Thing, read_pickle, told_of
from policyserve.policies.zips import Zip

_ORDERED = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_STORAGES: Mapping[str, str | None] = {  # None: a dtype that NumPy has not; such a tensor is never read
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "|i1",
    "torch ByteStorage": "|u1",
    "torch BoolStorage": "|b1",
    "torch BFloat16Storage": None,
}
_EXPECTED = frozenset((_ORDERED, _TENSOR, PERSISTENT, *_STORAGES))


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor's place in the file. shape, stride: in elements."""

    storage: Thing
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class StateDict:
    """The tensors of a file by name. Errors are ConfigErrors that begin with `told`."""

    def __init__(self, data: bytes | memoryview, told: str) -> None:
        self._told = told
        self._zip = Zip(data, told)
        self._left = len(data)  # bytes that tensors may take together, which may need copies
        pickles = [name for name in self._zip if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ConfigError(
                f"{told}: expected the zip archive that torch 1.6 and later write, with one data.pkl in it"
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        self._check_byte_order()
        place = f"{told}: data.pkl"
        named = map_of(read_pickle(self._zip[pickles[0]], place, _EXPECTED), place)
        self.tensors = {name: _tensor(value, f"{place}: {name:.80}") for name, value in named.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's sizes."""
        return self.tensors[name].shape

    def read(self, name: str) -> Array:
        """A tensor as a read-only array of the machine's byte order, a view of the file where that is possible.

        Read each once: all that is read together is bounded by the file's size.
        """
        tensor, told = self.tensors[name], f"{self._told}: {name:.80}"
        kind, key, count = _storage(tensor.storage, told)
        code = _STORAGES[kind]
        if code is None:
            raise ConfigError(f"{told}: expected float32 numbers, got {kind.removeprefix('torch ')}")
        dtype, entry = np.dtype(code), self._zip[f"{self._folder}data/{key}"]
        if len(entry) != count * dtype.itemsize:
            raise ConfigError(f"{told}: expected {count * dtype.itemsize} bytes in data/{key}, got {len(entry)}")
        last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
        if 0 in tensor.shape or last >= count or prod(tensor.shape) > count:
            got = f"{describe(dtype, tensor.shape)} with strides {tensor.stride} from {tensor.offset}"
            raise ConfigError(f"{told}: expected a tensor within its storage of {count} numbers, got {got}")
        numbers = np.frombuffer(entry, dtype)[tensor.offset : last + 1]
        self._left -= numbers.nbytes
        if self._left < 0:
            raise ConfigError(f"{told}: expected a storage for each tensor, got many tensors of one")
        if not numbers.flags.aligned or not dtype.isnative:
            numbers = numbers.astype(dtype.newbyteorder("="))
        steps = tuple(step * numbers.itemsize for step in tensor.stride)
        return np.lib.stride_tricks.as_strided(numbers, tensor.shape, steps, writeable=False)

    def _check_byte_order(self) -> None:
        """Torch says it since 2.0; before, it was the writer's."""
        name = f"{self._folder}byteorder"
        if name in self._zip and bytes(self._zip[name]) != b"little":
            raise ConfigError(f"{self._told}: expected numbers in little endian, got {bytes(self._zip[name][:20])!r}")


def _tensor(value: Any, told: str) -> Tensor:
    args = value.args if isinstance(value, Thing) and value.kind == _TENSOR else None
    if args is None or len(args) < 4 or not isinstance(args[0], Thing):
        raise ConfigError(f"{told}: expected a tensor, got {told_of(value)}")
    shape, stride = sizes_of(args[2], told), sizes_of(args[3], told)
    if len(shape) != len(stride):
        raise ConfigError(f"{told}: expected as many strides as sizes, got {stride} and {shape}")
    return Tensor(args[0], whole_number(args[1], told, 0, sys.maxsize), shape, stride)


def _storage(thing: Thing, told: str) -> tuple[str, str, int]:
    """The class, key and count of elements in a storage's persistent id: ("storage", class, key, device, count)."""
    pid = thing.args[0] if thing.kind == PERSISTENT and thing.args else None
    if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], Thing):
        raise ConfigError(f"{told}: expected a tensor with a storage, got another persistent id")
    _, kind, key, _, count = pid
    if kind.kind not in _STORAGES or not isinstance(key, str) or not key.isalnum():
        raise ConfigError(f"{told}: expected a storage of numbers, got {kind.kind} {told_of(key)}")
    return kind.kind, key, whole_number(count, told, 0, sys.maxsize)
