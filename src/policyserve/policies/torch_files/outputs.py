"""Which tensor is the action, of all that a torch program gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from policyserve.core.errors import ConfigError, names_told

_ACTIONS = ("actions", "action", "action_chunk")


def action_of(given: Any, wanted: str | None) -> Tensor:
    """The action: a tensor, or one of a map or of several in a row; raises ConfigError that tells what there is.

    wanted: its name in a map, or its place, 0 for the first. None: the one called actions, action or action_chunk, else
    the only one.
    """
    if wanted is None and isinstance(given, Tensor):
        return given
    outputs = _outputs(given)
    name = wanted if wanted is not None else _usual(outputs)
    if name is None:
        told = f"expected one tensor, or a map with {', '.join(_ACTIONS)}, got {_told(outputs)}"
        raise ConfigError(f"{told}: say which with --action")
    if name not in outputs:
        raise ConfigError(f"--action: expected one of its outputs, {_told(outputs)}, got {name!r}")
    found = outputs[name]
    if not isinstance(found, Tensor):
        raise ConfigError(f"output {name}: expected a tensor, got another thing: export it with tensors alone")
    return found


def _outputs(given: Any) -> dict[str, Any]:
    """By name or place."""
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    return {str(place): value for place, value in enumerate(given if isinstance(given, (tuple, list)) else [given])}


def _usual(outputs: Mapping[str, Any]) -> str | None:
    return next((name for name in _ACTIONS if name in outputs), next(iter(outputs)) if len(outputs) == 1 else None)


def _told(outputs: Mapping[str, Any]) -> str:
    return names_told(
        f"{name} {tuple(value.shape)}" if isinstance(value, Tensor) else name for name, value in outputs.items()
    )
