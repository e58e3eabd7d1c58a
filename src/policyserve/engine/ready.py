"""Stand-ins for a recipe: a policy that is loaded already, or a function that makes one policy per session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from policyserve.core.policy import PerSessionPolicy, Policy
from policyserve.core.recipe import OnStage


@dataclass(frozen=True)
class ReadyPolicy:
    """A policy that is there already: each load gives the same object, so one runner in this process can have it."""

    policy: Policy

    def __call__(self, on_stage: OnStage) -> Policy:
        return self.policy


@dataclass(frozen=True)
class PolicyPerSession:
    """A function that makes a policy, one for each session."""

    factory: Callable[[], Any]

    def __call__(self, on_stage: OnStage) -> Policy:
        """Make the first; raises what the function raises."""
        return PerSessionPolicy(self.factory)
