"""Looks for what a policy's program has no use for, before torch loads it: a hint, and no wall.

A program runs when it is loaded and called, and torch has no means to confine it. What is found here is refused in one
line: functions that write or map files, operators that are not torch's own, and expressions that Python would evaluate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from policyserve.core.errors import ConfigError

_FILES = re.compile(r"\b(?:torch|aten)\s*\.\s*(from_file|save)\b")
_OPERATORS = re.compile(r"\bops\s*\.\s*(?!(?:aten|prim|quantized)\s*\.)(\w+(?:\s*\.\s*\w+)?)")
_TARGET = re.compile(
    r"(torch\.ops\.(aten|prim|prims|quantized|quantized_decomposed|higher_order|_c10d_functional)\.\w+(\.\w+)?"
    r"|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_\w+|torch\._check\w*|torch\._C\._\w*grad_enabled"
    r"|torch\.(amp|autograd)\.\w+(\.\w+)*)"
)
_EXPRESSION = re.compile(r"([\w\s+\-*/(),.<>=&|~]|'\w+')*")
_CALLED = re.compile(r"\b(?![A-Z])[A-Za-z_]\w*\s*\(|__|\.\s*[A-Za-z_]")
_IMPORTING = ("default_factory_module", "__enum__")  # how a description of nested containers has a module imported
_SHOWN = 60
_CURE = "which a policy has no use for: export it without"


def check_code(text: str, told: str) -> None:
    """Raise ConfigError, beginning with `told`, for TorchScript's code that asks for more than to compute."""
    found = _FILES.search(text)
    if found:
        raise ConfigError(f"{told}: it calls {found[1]}, a function that touches files, {_CURE}")
    found = _OPERATORS.search(text)
    if found:
        raise ConfigError(f"{told}: it calls ops.{found[1]:.60}, no operator of torch's own, {_CURE}")


def check_graph(model: Any, told: str) -> None:
    """Raise ConfigError, beginning with `told`, for a .pt2's parsed JSON that asks for more than to compute."""
    for key, text in _texts(model):
        if key == "target" and text.startswith(("torch", "_operator", "math", "#")) and not _TARGET.fullmatch(text):
            raise ConfigError(f"{told}: it calls {text[:_SHOWN]!r}, no operator of torch's own, {_CURE}")
        if key == "target" and "from_file" in text:
            raise ConfigError(f"{told}: it calls from_file, a function that touches files, {_CURE}")
        if key == "expr_str" and (not _EXPRESSION.fullmatch(text) or _CALLED.search(text)):
            raise ConfigError(
                f"{told}: expected a size, got {text[:_SHOWN]!r}, which would be evaluated: export it again"
            )
        if key.endswith("spec") and any(f'"{word}"' in text for word in _IMPORTING):
            raise ConfigError(f"{told}: {key} has a module imported, {_CURE}")


def _texts(model: Any) -> Iterator[tuple[str, str]]:
    """Every text in JSON with the key that it stands at; without recursion, since a file may be nested deep."""
    left: list[tuple[str, Any]] = [("", model)]
    while left:
        key, value = left.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            left += [(str(name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            left += [(key, inner) for inner in value]
