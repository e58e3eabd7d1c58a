"""What a pickle names, and the shapes of the tensors in it, by its opcodes: nothing is built, called or imported."""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from policyserve.core.errors import ConfigError

_BY_STACK = (
    "STACK_GLOBAL",
    "INST",
    "OBJ",
    "EXT1",
    "EXT2",
    "EXT4",
)  # names that are put together, which torch never writes
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_OF_TENSORS = (
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.serialization._get_layout",
    "torch.Size",
    "torch.device",
)
_STORAGES = ("torch.", "Storage")
_MOST_STRINGS = 1000


@dataclass(frozen=True)
class Pickled:
    """names: what it would import, `torch._utils._rebuild_tensor_v2` say. strings: the first of its texts."""

    names: tuple[str, ...]
    strings: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def foreign(self) -> str:
        """The first name that is none of tensors in maps and lists; empty if there is none."""
        return next((name for name in self.names if not is_of_tensors(name)), "")


def is_of_tensors(name: str) -> bool:
    """Whether a pickle of tensors alone names this."""
    before, after = _STORAGES
    is_storage = name.startswith(before) and name.endswith(after) and name.count(".") <= 2
    dtype = name.removeprefix("torch.")
    return is_storage or name in _OF_TENSORS or (dtype != name and dtype.isalnum() and dtype[-1:].isdigit())


def read_pickle(data: bytes, told: str) -> Pickled:
    """Look through a pickle; raises ConfigError that begins with `told`."""
    names: list[str] = []
    strings: list[str] = []
    shapes: list[tuple[int, ...]] = []
    try:
        for operator, shape, argument in _operations(data):
            if operator in _BY_STACK:
                raise ConfigError(f"{told}: a pickle that makes up what it imports, which torch never writes")
            if operator == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif isinstance(argument, str) and len(strings) < _MOST_STRINGS:
                strings.append(argument)
            if shape is not None:
                shapes.append(shape)
    except ConfigError:
        raise
    except Exception as error:  # pickletools raises whatever its decoders do
        raise ConfigError(f"{told}: expected a pickle, got one that is damaged") from error
    return Pickled(tuple(names), tuple(strings), tuple(shapes))


def _operations(data: bytes) -> Iterator[tuple[str, tuple[int, ...] | None, Any]]:
    """Each opcode, the shape of a tensor that ends with it, and its argument.

    A tensor is its storage (BINPERSID), an offset, a tuple of its sizes and one of its strides.
    """
    numbers: list[int] | None = None
    for operator, argument, _ in pickletools.genops(data):
        shape = None
        if operator.name == "BINPERSID":
            numbers = []
        elif numbers is not None and isinstance(argument, int) and "PUT" not in operator.name:
            numbers.append(argument)
        elif numbers is not None and operator.name in _TUPLES:
            shape, numbers = tuple(numbers[1:]), None
        elif operator.name == "EMPTY_TUPLE":
            numbers = None
        yield operator.name, shape, argument
