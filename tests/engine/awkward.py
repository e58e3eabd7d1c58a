"""A policy that raises any of tests/strange.py's errors at any place where it, or what it answers, is read.

An observation says where and which, by their numbers, so that every dialect can tell it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.recipe import OnStage
from policyserve.core.spec import ArraySpec, PolicySpec
from tests.strange import STRANGE, strange

RUNNERS = ["inline", "thread", "process"]
_WHERE = {"server": 0, "policy": 1}  # by the thread's name; a process has one of its own


class Raising:
    """Raises at each way to read it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _raise(self, *_: Any, **__: Any) -> NoReturn:
        strange(self._name)

    __iter__ = __array__ = __str__ = __repr__ = __getitem__ = keys = _raise  # type: ignore[assignment]
    actions = state = extras = property(_raise)


class RaisingMap(Raising, Mapping[str, Any]):  # type: ignore[misc]
    __len__ = Raising._raise  # type: ignore[assignment]


class RaisingList(Raising, Sequence[Any]):  # type: ignore[misc]
    def __len__(self) -> int:
        return 2

    __array__ = None  # type: ignore[assignment]  # so that it is read as a sequence


class RaisingText(str):
    """A text, whose repr() an error would show."""

    def __new__(cls, name: str) -> RaisingText:
        made = super().__new__(cls, "a text")
        made.name = name  # type: ignore[attr-defined]
        return made

    def __repr__(self) -> str:
        strange(self.name)  # type: ignore[attr-defined]


class Half(Raising):
    """An answer of which one attribute alone raises."""

    def __init__(self, name: str, attribute: str) -> None:
        super().__init__(name)
        self._attribute = attribute

    def __getattribute__(self, attribute: str) -> Any:
        if attribute in ("actions", "state", "extras") and attribute != object.__getattribute__(self, "_attribute"):
            return {"actions": np.zeros(2, np.float32), "state": None, "extras": {}}[attribute]
        return object.__getattribute__(self, attribute)


def _given(name: str) -> BaseException:
    try:
        strange(name)
    except BaseException as error:
        return error


def _raised(name: str) -> NoReturn:
    strange(name)


def _with(extras: Any) -> ActionChunk:
    return ActionChunk(np.zeros(2, np.float32), extras=extras)


# Where it raises: what infer() does for one input.
PLACES: Mapping[str, Callable[[str], Any]] = {
    "infer": _raised,
    "prepare": lambda name: ActionChunk(np.zeros(2)),
    "an error in place of an answer": _given,
    "the answers": lambda name: ActionChunk(np.zeros(2)),
    "an answer": Raising,
    "its state": lambda name: Half(name, "state"),
    "its extras": lambda name: Half(name, "extras"),
    "actions as an array": lambda name: ActionChunk(Raising(name)),  # type: ignore[arg-type]
    "actions as a sequence": lambda name: ActionChunk(RaisingList(name)),  # type: ignore[arg-type]
    "actions as a text": lambda name: ActionChunk(RaisingText(name)),  # type: ignore[arg-type]
    "a map of extras": lambda name: _with(RaisingMap(name)),
    "an extra": lambda name: _with({"more": Raising(name)}),
    "an extra within": lambda name: _with({"more": [{"deep": (Raising(name), RaisingMap(name))}]}),
    "an extra's key": lambda name: _with({Raising(name): 1}),
}


class Awkward:
    """Answers where it ran, unless its observation asks for more."""

    buckets: Sequence[int] = ()

    def __init__(self, is_inline: bool) -> None:
        pair = ArraySpec((2,))
        self.spec = PolicySpec("awkward", {"obs": pair}, pair, max_batch=4, inline=is_inline, metadata={"robot": "arm"})

    def prepare(self, batch: Sequence[PolicyInput]) -> Any:
        for place, name in map(_asked, batch):
            if place == "prepare":
                strange(name)

    def infer_prepared(self, batch: Sequence[PolicyInput], prepared: Any) -> Any:
        for place, name in map(_asked, batch):
            if place == "the answers":
                return RaisingList(name)
        return [self._answer(*_asked(one)) for one in batch]

    def infer(self, batch: Sequence[PolicyInput]) -> Any:
        return self.infer_prepared(batch, self.prepare(batch))

    def close(self) -> None:
        """Nothing to release."""

    def _answer(self, place: str, name: str) -> Any:
        if not place:
            return ActionChunk(np.array([1, _WHERE.get(threading.current_thread().name, 2)], np.float32))
        return PLACES[place](name)


def _asked(one: PolicyInput) -> tuple[str, str]:
    place, name = (int(number) for number in one.observation["obs"])
    return ("", "") if place < 0 else ([*PLACES][place], STRANGE[name])


def load(is_inline: bool, on_stage: OnStage) -> Awkward:
    on_stage("loading\x1b[2J")
    return Awkward(is_inline)


# Where it raises in its life, and not in its answers.


class Living(Awkward):
    """Raises `name` at one place of its life."""

    def __init__(self, is_inline: bool, place: str, name: str) -> None:
        super().__init__(is_inline)
        self.place, self.name = place, name

    def close(self) -> None:
        if self.place == "close":
            strange(self.name)


class Resettable(Awkward):
    """Its reset() raises one error after the other."""

    resets = 0

    def reset(self) -> None:
        self.resets += 1
        if self.resets <= len(STRANGE):
            strange(STRANGE[self.resets - 1])


class Unsteady(Living):
    """Its spec can be read until it has answered once, and never again."""

    has_answered = False

    @property
    def spec(self) -> PolicySpec:  # type: ignore[override]
        if self.has_answered:
            strange(self.name)
        return self._spec

    @spec.setter
    def spec(self, spec: PolicySpec) -> None:
        self._spec = spec

    def infer_prepared(self, batch: Sequence[PolicyInput], prepared: Any) -> Any:
        self.has_answered = True
        return super().infer_prepared(batch, prepared)


class SecretMap(Mapping[str, Any]):
    """Metadata that can be read so many times."""

    def __init__(self, name: str, reads: int) -> None:
        self._name, self._reads = name, reads

    def __getitem__(self, key: str) -> Any:
        return "arm"

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        self._reads -= 1
        if self._reads < 0:
            strange(self._name)
        return iter(["robot"])


def load_living(is_inline: bool, place: str, name: str, on_stage: OnStage) -> Any:
    """A policy that raises at one place of its life."""
    if place == "loading":
        strange(name)
    if place == "reset":
        return Resettable(is_inline)
    policy = Unsteady(is_inline, place, name) if place == "spec" else Living(is_inline, place, name)
    if place.startswith("metadata"):
        policy.spec = replace(policy.spec, metadata=SecretMap(name, int(place == "metadata, later")))
    return policy
