"""One request of the soak: what it asks for, which fault it has the policy commit, and whether an answer is its own."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np

HEAD = 5  # numbers at an answer's beginning: client, session, number, the picture's checksum, a remark
FINE, OTHERS_STATE, CHANGED = 0, 1, 2  # remarks: the policy got another session's state, or what it kept was written to
_BLOCK = random.Random("pictures").randbytes(4 << 20)
_OFFSETS = 1 << 20
_ARM_AND_GRIPPER = 8


class Fault(IntEnum):
    """What the policy is to do when it sees a request."""

    NONE = 0
    RAISE = 1
    NAN = 2
    SHAPE = 3  # of its actions, not the one of its spec
    COUNT = 4  # fewer answers than inputs
    MEMORY = 5  # MemoryError
    SLOW = 6
    HANG = 7
    POISON = 8  # an error after which a GPU takes no more calls
    DIE = 9  # end the process
    UNPRINTABLE = 10  # raise an error whose text cannot be made
    SURROGATES = 11  # raise an error that names a file whose name is no UTF-8
    CONTROLS = 12  # raise an error whose text forges a line of the log and drives a terminal
    LONG_TEXT = 13  # raise an error whose text is a megabyte
    UNREADABLE = 14  # answer with actions that raise such an error when they are looked at
    EXTRAS = 15  # answer with extras that do


# What the policy says then cannot be told as it is.
MISWORDED = (
    Fault.UNPRINTABLE, Fault.SURROGATES, Fault.CONTROLS, Fault.LONG_TEXT, Fault.UNREADABLE, Fault.EXTRAS,
)  # fmt: skip
# For everybody but who asked.
HARMLESS = (Fault.RAISE, Fault.NAN, Fault.SHAPE, Fault.COUNT, Fault.MEMORY, *MISWORDED)
FORGED = "2026-01-01 00:00:00,000 WARNING policyserve.server"  # how a line begins that no log of the soak may have


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that no other one of the soak equals."""

    client: int
    session: int
    number: int
    fault: Fault = Fault.NONE
    seconds: float = 0.0
    picture_bytes: int = 0
    padding: int = 0  # numbers that the answer has behind its head
    names_columns: bool = False  # whether it has a joint state of the answer's size, by which XPolicyLab names columns

    @property
    def is_good(self) -> bool:
        """Whether the policy has no reason to refuse it."""
        return self.fault in (Fault.NONE, Fault.SLOW)

    @property
    def may_be_answered(self) -> bool:
        """Whether an answer is right: not every dialect carries extras."""
        return self.is_good or self.fault is Fault.EXTRAS

    def observation(self) -> dict[str, Any]:
        """What is sent."""
        named = {"state": {"arm_joint_state": np.zeros(HEAD + self.padding)}} if self.names_columns else {}
        return {
            **named,
            "who": np.array([self.client, self.session, self.number], np.float64),
            "do": np.array([self.fault, self.seconds, self.padding], np.float64),
            "picture": np.frombuffer(self._picture(), np.uint8),
        }

    def complaint(self, actions: Any) -> str:
        """Why these are not the answer; empty if they are."""
        if not self.may_be_answered:
            return f"{self.fault.name} was answered"
        if isinstance(actions, np.ndarray) and actions.ndim == 2 and len(actions) == 1:
            actions = actions[0]  # of a dialect whose answers are several steps
        if not isinstance(actions, np.ndarray) or actions.shape != (HEAD + self.padding,):
            return f"an answer of shape {getattr(actions, 'shape', None)}"
        told = np.array([self.client, self.session, self.number, zlib.crc32(self._picture())], np.float64)
        expected = told.astype(actions.dtype)  # a dialect of float32's has the first 24 bits of the checksum
        if not np.array_equal(actions[:4], expected):
            return f"expected {expected.tolist()}, got {actions[:4].tolist()}"
        if actions[4] != FINE:
            return (
                "another session's state" if actions[4] == OTHERS_STATE else "an observation changed while it was kept"
            )
        return "" if (actions[HEAD:] == self.number).all() else "another request's padding"

    def _picture(self) -> bytes:
        start = (self.client * 7919 + self.session * 104729 + self.number * 31) % _OFFSETS
        return _BLOCK[start : start + self.picture_bytes]


def draw(dice: random.Random, client: int, session: int, number: int) -> Ask:
    """A request as a lively client sends it: mostly small and good."""
    fault = dice.choice(HARMLESS) if dice.random() < 0.03 else Fault.NONE
    seconds = 0.0
    if fault is Fault.NONE and dice.random() < 0.01:
        fault, seconds = Fault.SLOW, dice.uniform(0.01, 0.2)
    picture_bytes = dice.choice((0, 0, 0, 300, 70_000, 300_000)) if dice.random() < 0.97 else 2_770_000
    padding = dice.choice((0, 0, 7, 100)) if dice.random() < 0.97 else 100_000
    return Ask(client, session, number, fault, seconds, picture_bytes, padding)


def draw_for(dialect: str, dice: random.Random, client: int, session: int, number: int) -> Ask:
    """A request as draw() makes it, whose answer the dialect can carry."""
    ask = draw(dice, client, session, number)
    if dialect == "molmospaces":  # seven numbers of an arm and one of a gripper, where a policy names no others
        return replace(ask, padding=_ARM_AND_GRIPPER - HEAD)
    return replace(ask, names_columns=dialect == "xpolicylab")
