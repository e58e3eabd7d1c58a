"""What two runs answered to the same requests, what could not be compared, and what that means. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.leaf_specs import ArraySpec
from policyserve.core.printable import one_line
from policyserve.core.spec import PolicySpec
from policyserve.replay.comparing import Comparison, Pair, compare

FORMAT = 1  # of as_json(): it rises when a key goes or changes its meaning
_LONGEST = 300
_LONGEST_NAME = 24


@dataclass(frozen=True)
class Refusal:
    """A request that was answered in the recording, and is refused now."""

    session: int
    step: int
    code: str
    text: str


@dataclass
class Gathered:
    """What there is so far.

    recorded, replayed: who answered, for people; empty where nobody says. origin: where the one that is asked comes
    from. requests: of the recording, so far as it
    was walked through. without_actions: of them those that have no actions in the recording. unreadable: of those
    the ones that could not be asked. refused: by the one that was asked. unmatched: requests that one side alone has.
    repeated: requests that were asked with the noise or the seed of the recorded answer, by its key. draws_noise:
    whether the same request was answered differently when it was asked twice; None: not tried. action_axes: see
    comparing.as_rows(). names: of an action's numbers, as far as a spec tells. stopped: why not all was asked.
    """

    recorded: str = ""
    replayed: str = ""
    origin: str = ""
    action_axes: int | None = None
    names: tuple[str, ...] = ()
    pairs: list[Pair] = field(default_factory=list)
    sessions: int = 0
    requests: int = 0
    without_actions: int = 0
    unreadable: int = 0
    refused: list[Refusal] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    repeated: Counter[str] = field(default_factory=Counter)
    draws_noise: bool | None = None
    notes: list[str] = field(default_factory=list)
    stopped: str = ""
    seconds: float = 0.0

    def describe_actions(self, spec: PolicySpec | None) -> None:
        """Take from a spec which axes an action has, and what its numbers are called."""
        action = None if spec is None else spec.action
        if action is not None:
            self.action_axes = len(action.shape)
            self.names = names_of(action)

    def name_of(self, dimension: int) -> str:
        """What a number of an action is called; `action[2]` where nobody says."""
        return self.names[dimension] if dimension < len(self.names) else f"action[{dimension}]"

    def answered(self, session: int, step: int, recorded: Array, replayed: Array) -> None:
        """Keep both answers to a request; they are copied."""
        self.pairs.append(Pair(session, step, np.array(recorded), np.array(replayed)))

    def refuse(self, session: int, step: int, code: str, text: str) -> None:
        """A request was refused that has actions in the recording."""
        self.refused.append(Refusal(session, step, code, one_line(text, _LONGEST)))

    def compared(self, tolerance: float | None) -> Verdict:
        """Compare what there is; tolerance: see comparing.compare()."""
        return Verdict(self, compare(self.pairs, tolerance, self.action_axes), tolerance)


@dataclass(frozen=True)
class Verdict:
    """What was gathered, and how far it is apart."""

    gathered: Gathered
    comparison: Comparison
    tolerance: float | None

    @property
    def is_passed(self) -> bool:
        """Whether every request that can be compared was, and is within the tolerance."""
        gathered = self.gathered
        return self.comparison.is_within and not gathered.refused and not gathered.unmatched and not gathered.stopped

    @property
    def status(self) -> int:
        """The exit status."""
        return 0 if self.is_passed else 1

    @property
    def word(self) -> str:
        """The verdict as programs read it: same, within, beyond, incomplete or nothing."""
        if not self.comparison.requests:
            return "nothing"
        if not self.comparison.is_within:
            return "beyond"
        if not self.is_passed:
            return "incomplete"
        return "same" if self.comparison.is_same else "within"

    def as_json(self, recording: str) -> dict[str, Any]:
        """All figures; what is infinite or no number is null. docs/replay.md says what each key holds."""
        gathered, found = self.gathered, self.comparison
        document = {
            "format": FORMAT,
            "verdict": self.word,
            "status": self.status,
            "recording": recording,
            "recorded": gathered.recorded,
            "replayed": gathered.replayed,
            "origin": gathered.origin,
            "tolerance": self.tolerance,
            "sessions": gathered.sessions,
            "requests": gathered.requests,
            "compared": found.requests,
            "differing": found.differing,
            "beyond": found.beyond,
            "without_actions": gathered.without_actions,
            "unreadable": gathered.unreadable,
            "refused": [asdict(one) for one in gathered.refused],
            "unmatched": gathered.unmatched,
            "other_shapes": [asdict(one) for one in found.other_shapes],
            "dimensions": [self._dimension(number) for number in range(len(found.dimensions))],
            "first": None if found.first is None else asdict(found.first),
            "first_beyond": None if found.first_beyond is None else asdict(found.first_beyond),
            "worst": None if found.worst is None else asdict(found.worst),
            "repeated": dict(gathered.repeated),
            "draws_noise": gathered.draws_noise,
            "notes": gathered.notes,
            "stopped": gathered.stopped,
            "seconds": gathered.seconds,
        }
        return {key: _finite(value) for key, value in document.items()}

    def _dimension(self, number: int) -> dict[str, Any]:
        found = self.comparison.dimensions[number]
        return {"name": self.gathered.name_of(number), **asdict(found), "spread": found.spread, "share": found.share}


def names_of(action: ArraySpec) -> tuple[str, ...]:
    """The names in a spec's doc, `x, y, gripper`, where it has one for each number; empty where it has not."""
    count = prod(size or 0 for size in action.shape)
    told = action.doc.partition(";")[0]
    names = [one_line(name.strip()) for name in (told.split(",") if count != 1 else [told])]
    is_fitting = len(names) == count and all(0 < len(name) <= _LONGEST_NAME for name in names)
    return tuple(names) if is_fitting else ()


def _finite(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
