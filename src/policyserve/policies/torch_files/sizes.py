"""What --obs says of a program's inputs, whose sizes no TorchScript file has: `45`, `image=3x36x48,state=5`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from policyserve.core.errors import ConfigError, names_told

_EXPECTED = "sizes as 45 or image=3x36x48,state=5, with a dtype as ids=int64:8"
_DTYPES = ("float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool")
_RULE = re.compile(rf"((?P<name>\w+)=)?((?P<dtype>{'|'.join(_DTYPES)}):)?(?P<sizes>\d{{1,9}}(x\d{{1,9}})*)")
_MOST_NUMBERS = 1 << 28  # of one input: a gibibyte of float32


@dataclass(frozen=True)
class Input:
    """An input of a program, without its batch. None: a size that the file leaves free."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


def read_sizes(text: str | None) -> tuple[Input, ...]:
    """What stands behind --obs; the name of a single size may be empty. Raises ConfigError."""
    found: list[Input] = []
    for part in [] if text is None else text.split(","):
        rule = _RULE.fullmatch(part.strip())
        shape = tuple(int(size) for size in rule["sizes"].split("x")) if rule else ()
        if rule is None or 0 in shape or prod(shape) > _MOST_NUMBERS:
            raise ConfigError(f"obs: expected {_EXPECTED}, got {part.strip() or 'nothing'!r}")
        found.append(Input(rule["name"] or "", shape, rule["dtype"] or "float32"))
    names = [one.name for one in found]
    if len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        raise ConfigError(f"obs: expected a name for each of several inputs, and none twice, got {text!r}")
    return tuple(found)


def sized(takes: Sequence[str], given: Sequence[Input], width: int | None) -> tuple[Input, ...]:
    """The inputs of a TorchScript program in forward's order.

    takes: forward's names. width: what its first layer seems to take. Raises ConfigError where --obs is missing, or
    tells of other inputs.
    """
    signature = f"forward({', '.join(takes)})"
    if not given:
        raise ConfigError(f"{signature}: TorchScript stores no sizes; add --obs {_suggested(takes, width)}")
    if len(takes) == 1 and not given[0].name:
        return (Input(takes[0], given[0].shape, given[0].dtype),)
    by_name = {one.name: one for one in given}
    if set(by_name) != set(takes):
        got = names_told(name or "a size without a name" for name in by_name)
        raise ConfigError(f"{signature}: --obs: expected a size for each of {names_told(takes)}, got {got}")
    return tuple(by_name[name] for name in takes)


def _suggested(takes: Sequence[str], width: int | None) -> str:
    if len(takes) > 1:
        return f"{','.join(f'{name}=SIZE' for name in takes)}, as image=3x36x48,state=5"
    return "SIZE, as --obs 45" if width is None else f"{width}, which its first layer seems to take"
