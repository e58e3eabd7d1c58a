"""A policy that does what its observations tell it, so that one body of tests can drive it in any kind of runner."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.errors import BadObservation, ConfigError
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec, TextSpec

SPEC = PolicySpec(
    "obedient",
    {"x": ArraySpec((1,)), "do": TextSpec(default="echo")},
    ArraySpec((1,)),
    max_batch=8,
    metadata={"robot": "arm", "rates": (10, 20)},
)


class Obedient:
    """`do` names a method; `x` is its number. marks: a directory where it leaves files for the test to see."""

    buckets: Sequence[int] = (1, 8)

    def __init__(self, marks: Path | None = None) -> None:
        self.spec = SPEC
        self._marks = marks
        self._kept: list[Any] = []

    def infer(self, batch: Sequence[PolicyInput]) -> Any:
        if batch[0].observation.get("do") == "miscount":
            return []
        return [getattr(self, one.observation.get("do") or "echo")(one) for one in batch]

    def close(self) -> None:
        self._mark("closed")

    # What it can be told

    def echo(self, one: PolicyInput) -> ActionChunk:
        return ActionChunk(one.observation["x"])

    def count(self, one: PolicyInput) -> ActionChunk:
        """How many of this session's calls there were; forgets at x < 0."""
        calls = (one.state or 0) + 1
        return ActionChunk(np.array([calls], np.float32), state=None if one.observation["x"] < 0 else calls)

    def count_when_told(self, one: PolicyInput) -> ActionChunk:
        """Count, with any x but 0 once the file named `go` is there."""
        if one.observation["x"]:
            self.wait(one)
        return self.count(one)

    def tell(self, one: PolicyInput) -> ActionChunk:
        return ActionChunk(one.observation["x"], extras={"seen": one.observation["more"]})

    def keep(self, one: PolicyInput) -> ActionChunk:
        """Keeps the image, and tells whether all that it kept are what they were."""
        one.observation["image"][0] += 1  # it is the policy's own
        self._kept.append((one.observation["image"], one.observation["image"].copy()))
        is_same = all(np.array_equal(kept, copy) for kept, copy in self._kept)
        return ActionChunk(np.array([is_same], np.float32))

    def point(self, one: PolicyInput) -> ActionChunk:
        """The image's address, modulo 64."""
        return ActionChunk(np.array([one.observation["image"].ctypes.data % 64], np.float32))

    def error(self, one: PolicyInput) -> BadObservation:
        return BadObservation("x", "more", "less", "try again")

    def fail(self, one: PolicyInput) -> ActionChunk:
        raise ERRORS[int(one.observation["x"][0])]

    def quote(self, one: PolicyInput) -> ActionChunk:
        """Raises what a client may have said."""
        raise ValueError("unknown task 'CUDA error: an illegal memory access was encountered'")

    def nan(self, one: PolicyInput) -> ActionChunk:
        return ActionChunk(one.observation["x"] * np.nan)

    def wide(self, one: PolicyInput) -> ActionChunk:
        return ActionChunk(np.zeros(2, np.float32))

    def nothing(self, one: PolicyInput) -> None:
        return None

    def odd(self, one: PolicyInput) -> ActionChunk:
        return ActionChunk(one.observation["x"], extras={"odd": {1, 2}})

    def wait(self, one: PolicyInput) -> ActionChunk:
        """Until the file named `go` is there."""
        self._mark("waiting")
        assert self._marks is not None
        while not (self._marks / "go").exists():
            time.sleep(0.002)
        return self.echo(one)

    def hold(self, one: PolicyInput) -> ActionChunk:
        """Hold the interpreter's lock for an hour."""
        self._mark("waiting")
        ctypes.PyDLL(None).sleep(3600)
        return self.echo(one)

    def die(self, one: PolicyInput) -> ActionChunk:
        self._mark("dying")
        number = int(one.observation["x"][0])
        if number:
            os.kill(os.getpid(), number)
        os._exit(3)

    def crash_once(self, one: PolicyInput) -> ActionChunk:
        """Crash the process at the first call of all."""
        assert self._marks is not None
        if not (self._marks / "crashed").exists():
            self._mark("crashed")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.echo(one)

    def print(self, one: PolicyInput) -> ActionChunk:
        print("a line of the policy's", flush=True)
        return self.echo(one)

    def process(self, one: PolicyInput) -> ActionChunk:
        return ActionChunk(one.observation["x"], extras={"process": os.getpid()})

    def _mark(self, name: str) -> None:
        if self._marks is not None:
            (self._marks / name).touch()


class Preparing(Obedient):
    """Leaves `prepared X` behind for each x that it has prepared, and answers those alone that were.

    Told `unprepared`, it raises while it prepares; told `linger`, it prepares until the file `linger` is there.
    """

    def prepare(self, batch: Sequence[PolicyInput]) -> tuple[int, list[float]]:
        for one in batch:
            assert one.state is None
            if one.observation.get("do") == "unprepared":
                raise ERRORS[int(one.observation["x"][0])]
            if one.observation.get("do") == "linger":
                self._linger()
        prepared = [float(one.observation["x"][0]) for one in batch]
        for x in prepared:
            self._mark(f"prepared {x:g}")
        return threading.get_ident(), prepared

    def infer_prepared(self, batch: Sequence[PolicyInput], prepared: tuple[int, list[float]]) -> Any:
        thread, xs = prepared
        assert xs == [float(one.observation["x"][0]) for one in batch]
        self._is_ahead = thread != threading.get_ident()
        return super().infer(batch)

    def infer(self, batch: Sequence[PolicyInput]) -> Any:
        raise AssertionError("a policy that prepares is asked to")

    def __del__(self) -> None:
        self._mark("freed")

    def ahead(self, one: PolicyInput) -> ActionChunk:
        """Whether another thread prepared it."""
        return ActionChunk(np.array([self._is_ahead], np.float32))

    def linger(self, one: PolicyInput) -> ActionChunk:
        self._mark("lingered")
        return self.echo(one)

    def _linger(self) -> None:
        self._mark("lingering")
        assert self._marks is not None
        while not (self._marks / "linger").exists():
            time.sleep(0.002)


class Generating(Obedient):
    """Answers from a generator, which raises nothing; told `empty`, it takes the batch's inputs out of it."""

    def infer(self, batch: Sequence[PolicyInput]) -> Any:
        if batch[0].observation.get("do") == "empty":
            batch.clear()  # type: ignore[attr-defined]  # of a list
        return (self.echo(one) for one in batch)


ERRORS: Mapping[int, BaseException] = {
    0: ValueError("negative"),
    1: SystemExit(1),
    2: KeyboardInterrupt(),
    3: MemoryError(),
    4: RecursionError(),
    5: StopIteration(),
    6: RuntimeError("CUDA error: an illegal memory access was encountered"),
    7: RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    8: RuntimeError("CUDA error: a new kind of error"),
}


def load(marks: Path | None, on_stage: Callable[[str], None]) -> Obedient:
    """Load it as a model would be: with stages."""
    on_stage("reading 50 %")
    return Obedient(marks)


def load_with_error(kind: str) -> Obedient:
    """Fail to load."""
    if kind == "exit":
        sys.exit(4)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "config":
        raise ConfigError("no checkpoint in here")
    raise ValueError("no such file")


def load_unwarmable() -> Obedient:
    """A policy that cannot answer zeros."""

    class Refusing(Obedient):
        def infer(self, batch: Sequence[PolicyInput]) -> Any:
            raise ZeroDivisionError("x is 0")

    return Refusing()


def load_with_metadata(marks: Path) -> Obedient:
    """A policy that tells what numbers it was trained with."""
    policy = Obedient(marks)
    numbers = {"mean": np.arange(1_000.0), "best": float("nan"), "ranges": [np.zeros(2), (1, 2)]}
    policy.spec = replace(SPEC, metadata=numbers)
    return policy


def load_secretive() -> Obedient:
    """A policy whose metadata no process can have but its own."""
    policy = Obedient()
    policy.spec = replace(SPEC, metadata={"robot": object()})
    return policy


def load_other_spec_later(marks: Path) -> Obedient:
    """The second time, a policy with another spec."""
    policy = Obedient(marks)
    if (marks / "loaded").exists():
        policy.spec = PolicySpec("another", None, None)
    (marks / "loaded").touch()
    return policy


def load_settling(marks: Path) -> Obedient:
    """A policy with something to do in three parts once it was asked; the last one fails. Each leaves a file."""

    class Settling(Obedient):
        parts = 0

        def infer(self, batch: Sequence[PolicyInput]) -> Any:
            self.parts = self.parts or 3 * (batch[0].observation["x"][0] > 0)
            return super().infer(batch)

        def settle(self) -> bool:
            if self.parts <= 0:
                return False
            (marks / f"part{self.parts:.0f}").touch()
            self.parts -= 1
            if not self.parts:
                raise ValueError("the last part")
            return True

    return Settling(marks)


def load_smaller_later(marks: Path) -> Obedient:
    """The second time, a policy that takes two inputs at a time and not eight."""

    class Small(Obedient):
        def infer(self, batch: Sequence[PolicyInput]) -> Any:
            assert len(batch) <= self.spec.max_batch
            return super().infer(batch)

    policy = Small(marks)
    policy.buckets = (1,)
    if (marks / "loaded").exists():
        policy.spec = replace(SPEC, max_batch=2)
    (marks / "loaded").touch()
    return policy


def load_once(marks: Path) -> Obedient:
    """Fail to load any time but the first, leaving a file per attempt, until there is one named `heal`."""
    attempts = len(list(marks.glob("attempt*")))
    (marks / f"attempt{attempts}").touch()
    if attempts and not (marks / "heal").exists():
        raise ValueError("the disk is gone")
    return Obedient(marks)


def load_with_devices() -> Obedient:
    """A policy that tells which GPUs its process sees."""

    class Telling(Obedient):
        def echo(self, one: PolicyInput) -> ActionChunk:
            return ActionChunk(one.observation["x"], extras={"devices": os.environ.get("CUDA_VISIBLE_DEVICES")})

    return Telling()


def load_vibe_rl(marks: Path) -> Callable[[Any], Any]:
    """A function of bare numbers: any but 0 is the signal to die of, once."""

    def act(x: Any) -> Any:
        if x[0] and not (marks / "crashed").exists():
            (marks / "crashed").touch()
            os.kill(os.getpid(), int(x[0]))
        return x

    return act
