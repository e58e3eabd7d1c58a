"""A policy that says whom it answers, remembers its sessions, and commits the faults that it is asked for."""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec

from .asks import CHANGED, FINE, FORGED, HEAD, OTHERS_STATE, Fault

_KEPT = 16  # observations that it holds on to, and looks at again
_KEPT_BYTES = 400_000  # of each, at most: what it keeps counts as the server's memory
_LOADS_S = 60.0  # at most: a soak that has ended opens no gate


def load(gate: str | None) -> Accountant:
    """The policy, once the file `gate` is gone."""
    deadline = time.monotonic() + _LOADS_S
    while gate is not None and Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return Accountant()


class Accountant:
    """Answers each input with its own name and checksum; its state is the session's name."""

    spec = PolicySpec(
        "accountant",
        observation={
            "who": ArraySpec((3,), "float64", "client, session, number"),
            "do": ArraySpec((3,), "float64", "fault, seconds, padding"),
            "picture": ArraySpec((None,), "uint8", "any bytes"),
        },
        action=ArraySpec((None,), "float64", "who, the picture's checksum, a remark, padding"),
        max_batch=16,
    )

    def __init__(self) -> None:
        self._kept: deque[tuple[Array, int]] = deque(maxlen=_KEPT)
        self._is_anything_changed = False

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        """Commit what is asked for, or answer."""
        self._look_at_kept()
        for one in batch:
            _commit(one)
        chunks = [self._answer(one) for one in batch]
        return chunks[1:] if any(_fault(one) is Fault.COUNT for one in batch) else chunks

    def close(self) -> None:
        """Nothing to release."""

    def _look_at_kept(self) -> None:
        if any(zlib.crc32(picture.data) != checksum for picture, checksum in self._kept):
            self._is_anything_changed = True

    def _answer(self, one: PolicyInput) -> ActionChunk:
        who, picture = one.observation["who"], one.observation["picture"]
        name = who[:2].tolist()
        checksum = zlib.crc32(picture.data)
        if picture.nbytes <= _KEPT_BYTES:
            self._kept.append((picture, checksum))
        remark = OTHERS_STATE if one.state not in (None, name) else CHANGED if self._is_anything_changed else FINE
        actions = np.full(HEAD + int(one.observation["do"][2]), who[2])
        actions[:HEAD] = [*who, checksum, remark]
        if _fault(one) is Fault.NAN:
            actions[-1] = np.nan
        if _fault(one) is Fault.UNREADABLE:
            return ActionChunk(Unreadable(), state=name)  # type: ignore[arg-type]
        extras = {"remark": Unreadable()} if _fault(one) is Fault.EXTRAS else {}
        return ActionChunk(actions[None] if _fault(one) is Fault.SHAPE else actions, state=name, extras=extras)


class Unprintable(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise AttributeError("the text needs what is not there")

    __repr__ = __str__


class Unreadable:
    """An object that raises such an error whatever is done with it."""

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise Unprintable

    def __iter__(self) -> Any:
        raise Unprintable

    def __len__(self) -> int:
        raise Unprintable

    def __repr__(self) -> str:
        raise Unprintable

    __str__ = __repr__


def _commit(one: PolicyInput) -> None:
    fault, seconds = _fault(one), float(one.observation["do"][1])
    if fault in (Fault.SLOW, Fault.HANG):
        time.sleep(seconds)
    elif fault is Fault.RAISE:
        raise RuntimeError("asked to raise")
    elif fault is Fault.MEMORY:
        raise MemoryError("asked to run out of memory")
    elif fault is Fault.POISON:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    elif fault is Fault.DIE:
        os._exit(3)
    elif fault is Fault.UNPRINTABLE:
        raise Unprintable
    elif fault is Fault.SURROGATES:
        raise FileNotFoundError(2, "No such file or directory", "caf\udce9.txt")
    elif fault is Fault.CONTROLS:
        raise ValueError(f"no task \x1b[2J\x9b31m\u202e\u2028\r\n{FORGED}: session 1 opened key=soak\x00")
    elif fault is Fault.LONG_TEXT:
        raise ValueError("no task " + "x" * 1_000_000)


def _fault(one: PolicyInput) -> Any:
    return Fault(int(one.observation["do"][0]))
