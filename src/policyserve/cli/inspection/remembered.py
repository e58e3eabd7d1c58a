"""What a policy keeps of each session between two requests: it is asked once with zeros, and its state looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from policyserve.core.errors import of_policy
from policyserve.core.policy import ActionChunk, PerSessionPolicy, Policy, PolicyInput, ResettablePolicy
from policyserve.core.printable import one_line

_LONGEST = 200
_WHOLE = "state"  # what a state without parts is called


@dataclass(frozen=True)
class Remembered:
    """What is kept. kept: None: unknown. size_bytes: of arrays, of one session. parts: their bytes, by name."""

    kept: bool | None
    told: str
    size_bytes: int | None = None
    parts: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {"kept": self.kept, "told": self.told, "bytes": self.size_bytes, "parts": dict(self.parts)}


NOT_TOLD = Remembered(None, "not told: a greeting has nothing about it")


def remembered_by(policy: Policy) -> Remembered:
    """Ask a policy once, and see what it wants to be given back with its session's next request."""
    if isinstance(policy, PerSessionPolicy):
        return Remembered(True, "each session has an object of its own, which goes when the session ends")
    if isinstance(policy, ResettablePolicy):
        return Remembered(True, "one memory for all sessions: right for one at a time")
    if policy.spec.observation is None:
        return Remembered(None, "unknown: it was not asked, since it takes anything")
    try:
        (answer,) = policy.infer([PolicyInput(policy.spec.example())])
    except Exception as error:  # a stranger's policy
        return _unknown(of_policy(error, "it raised"))
    return _kept(answer.state) if isinstance(answer, ActionChunk) else _unknown(answer)


def _unknown(error: BaseException) -> Remembered:
    return Remembered(None, one_line(f"unknown: of zeros it made no answer: {error}", _LONGEST))


def _kept(state: Any) -> Remembered:
    if state is None:
        return Remembered(False, "none: an answer hangs on its observation alone", 0)
    sizes = {name: sum(_sizes(part)) for name, part in _parts(state)}
    parts = {name: size for name, size in sizes.items() if size}
    names = ", ".join(name for name in parts if name != _WHOLE)
    return Remembered(True, names, sum(parts.values()), parts)


def _parts(state: Any) -> Iterator[tuple[str, Any]]:
    """A state's parts by name, where it has such."""
    if hasattr(state, "_fields"):
        yield from zip(state._fields, state, strict=True)
    elif is_dataclass(state):
        yield from ((one.name, getattr(state, one.name)) for one in fields(state))
    elif isinstance(state, Mapping):
        yield from ((str(name), part) for name, part in state.items())
    else:
        yield _WHOLE, state


def _sizes(part: Any) -> Iterator[int]:
    """The bytes of each array in it, NumPy's or torch's."""
    if isinstance(part, (str, bytes)):
        return
    size = getattr(part, "nbytes", None)
    if isinstance(size, int):
        yield size
    elif isinstance(part, Mapping):
        yield from (size for inner in part.values() for size in _sizes(inner))
    elif isinstance(part, (tuple, list)):
        yield from (size for inner in part for size in _sizes(inner))
    elif is_dataclass(part):
        yield from (size for one in fields(part) for size in _sizes(getattr(part, one.name)))
