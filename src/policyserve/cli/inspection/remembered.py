"""What a policy keeps of each session between two requests: it is asked once with zeros, and its state looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from policyserve.bench.payloads import told_bytes
from policyserve.core.arrays import describe
from policyserve.core.errors import of_policy
from policyserve.core.policy import ActionChunk, PerSessionPolicy, Policy, PolicyInput, ResettablePolicy
from policyserve.core.printable import one_line

_LONGEST = 200
_WHOLE = "arrays"  # what a state without parts is called
_FEW = 2


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
        return Remembered(False, "none: an answer depends on its observation alone", 0)
    arrays = {name: list(_arrays(part)) for name, part in _parts(state)}
    sizes = {name: sum(one.nbytes for one in found) for name, found in arrays.items() if found}
    told = [_told(name, arrays[name], size) for name, size in sizes.items() if size]
    small = [name for name, part in _parts(state) if not arrays[name] and part is not None and part != ()]
    return Remembered(True, ", ".join(told or small), sum(sizes.values()), sizes)


def _told(name: str, arrays: Sequence[Any], size_bytes: int) -> str:
    """A part with what it is, where it is a few arrays."""
    counts = Counter(describe(str(one.dtype).removeprefix("torch."), tuple(one.shape)) for one in arrays)
    if len(counts) > _FEW:
        return f"{name} {told_bytes(size_bytes)}"
    told = [kind if count == 1 else f"{count} x {kind}" for kind, count in counts.items()]
    return f"{name} {' and '.join(told)}"


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


def _arrays(part: Any) -> Iterator[Any]:
    """The arrays in it, NumPy's or torch's."""
    if isinstance(part, Mapping):
        part = tuple(part.values())
    if all(hasattr(part, name) for name in ("nbytes", "dtype", "shape")):
        yield part
    elif isinstance(part, (tuple, list)):
        yield from (found for inner in part for found in _arrays(inner))
    elif is_dataclass(part):
        yield from (found for one in fields(part) for found in _arrays(getattr(part, one.name)))
