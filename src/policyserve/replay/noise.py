"""Has a policy draw the noise that it drew when it was recorded, where its answer says which that was. Pure.

A policy that samples can say in its extras what it began with, as `noise` or `seed`, and take the same key in an
observation. docs/replay.md says so to those who write one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.messages import Observation, Reply
from policyserve.core.spec import PolicySpec

KEYS = ("noise", "seed")


def told_by(answer: Reply | None) -> Mapping[str, Any]:
    """What a recorded answer says of the noise that was drawn for it; empty where it says nothing."""
    return {} if answer is None else {key: answer[key] for key in KEYS if answer.get(key) is not None}


def repeating(observation: Observation, answer: Reply | None, spec: PolicySpec | None) -> tuple[Observation, list[str]]:
    """The observation with what its recorded answer says of its noise, and the keys that were added.

    spec: of the policy that is asked; what it has no key for is left out. None: nobody knows, and all is sent.
    """
    takes_all = spec is None or spec.observation is None
    missing = {
        key: value
        for key, value in told_by(answer).items()
        if key not in observation and (takes_all or (spec is not None and key in spec.leaves))
    }
    return ({**observation, **missing} if missing else observation), list(missing)
