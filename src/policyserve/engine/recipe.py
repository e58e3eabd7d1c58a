"""A policy that is there already, in the place of a recipe for one."""

from __future__ import annotations

from dataclasses import dataclass

from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage, Recipe

__all__ = ["ReadyPolicy", "Recipe"]


@dataclass(frozen=True)
class ReadyPolicy:
    """A policy that is there already: each load gives the same object, so one runner in this process can have it."""

    policy: Policy

    def __call__(self, on_stage: OnStage) -> Policy:
        return self.policy
