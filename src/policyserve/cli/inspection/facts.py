"""All that `policyserve inspect` finds out of one target or server, as programs get it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyserve.cli.inspection.remembered import NOT_TOLD, Remembered
from policyserve.core.spec import PolicySpec
from policyserve.core.version import VERSION

FORMAT = 1  # of as_json(): it rises when a key goes or changes its meaning
_DEEPEST = 16
_MOST_NUMBERS = 1000  # of an array in the metadata; of a larger one its dtype and shape are told


@dataclass(frozen=True)
class Facts:
    """What is known of a target. kind: a scheme, a policy's name, `object`, or `server`; empty: nobody knows.

    origin: where it comes from, of a server which one it is. taken_for: of a path alone, what it was taken for.
    is_server: a URL, whose greeting tells nothing of batches. size_bytes: on the disk, of so many files; None: unknown.
    spec: None where a server tells none, or it is refused. refused: why it cannot be served; empty: it can.
    """

    target: str
    kind: str
    title: str
    origin: str = ""
    taken_for: str = ""
    is_server: bool = False
    size_bytes: int | None = None
    files: int = 0
    spec: PolicySpec | None = None
    remembered: Remembered = NOT_TOLD
    metadata: Mapping[str, Any] = field(default_factory=dict)
    dialects: tuple[str, ...] = ()
    refused: str = ""

    def as_json(self) -> dict[str, Any]:
        """One object, whose keys are always the same; docs/inspect.md says what each holds."""
        return {
            "format": FORMAT,
            "policyserve": VERSION,
            "target": self.target,
            "kind": self.kind,
            "title": self.title,
            "origin": self.origin,
            "taken_for": self.taken_for,
            "size_bytes": self.size_bytes,
            "files": self.files,
            "spec": None if self.spec is None else _described(self.spec),
            "state": None if self.refused else self.remembered.as_json(),
            "batch": None if self.spec is None or self.is_server else _batch(self.spec),
            "dialects": list(self.dialects),
            "metadata": _plain(self.metadata),
            "refused": self.refused or None,
        }


def _described(spec: PolicySpec) -> dict[str, Any]:
    """The spec as a greeting has it; an observation of None where anything is taken."""
    described = {"name": spec.name, **spec.describe()}
    return {**described, "observation": described["observation"] if spec.observation is not None else None}


def _batch(spec: PolicySpec) -> dict[str, Any]:
    return {"max_batch": spec.max_batch, "max_client_batch": spec.max_client_batch, "inline": spec.inline}


def _plain(value: Any, depth: int = 0) -> Any:
    """A policy's metadata as JSON has it: arrays as lists, or by dtype and shape; other objects as a text."""
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item(), depth)
    if isinstance(value, np.ndarray):
        is_small = value.size <= _MOST_NUMBERS and value.dtype.kind in "biuf"
        return _plain(value.tolist(), depth) if is_small else {"dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, float) and not math.isfinite(value):  # JSON has none of these
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else f"{value!r:.200}"
