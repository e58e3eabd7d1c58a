"""A policy that says whom it answers, remembers its sessions, and commits the faults that it is asked for."""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, PolicySpec

from .asks import CHANGED, FINE, HEAD, OTHERS_STATE, Fault

_KEPT = 16  # observations that it holds on to, and looks at again
_KEPT_BYTES = 400_000  # of each, at most: what it keeps counts as the server's memory


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
        return ActionChunk(actions[None] if _fault(one) is Fault.SHAPE else actions, state=name)


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


def _fault(one: PolicyInput) -> Any:
    return Fault(int(one.observation["do"][0]))
