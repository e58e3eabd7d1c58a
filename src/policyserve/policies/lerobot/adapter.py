"""A LeRobot policy on the command line: `lerobot:PATH`."""

from __future__ import annotations

from dataclasses import dataclass

from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage, Recipe
from policyserve.policies.lerobot.layout import find_folder
from policyserve.policies.lerobot.loading import check_policy, load_policy
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.plan import read_folder
from policyserve.policies.registry import Source


@dataclass(frozen=True)
class LeRobotAdapter:
    """Serves what lerobot-train leaves: a run, its checkpoints, a step, or the folder pretrained_model."""

    target: str
    help = "a policy that LeRobot trained, by its folder: ACT, Diffusion; others where lerobot is installed"
    rest = "PATH"
    flags = LeRobotFlags

    def defaults(self, given: LeRobotFlags | None) -> LeRobotFlags:
        return LeRobotFlags()

    def source(self, flags: LeRobotFlags) -> Source:
        """Say what these flags stand for; whatever is wrong with the files is its check's to tell."""
        named = self.target.partition(":")[2]
        return Source(
            _title(named),
            named,
            Recipe(f"{__name__}:load", {"named": named, "flags": flags}),
            check=lambda: check_policy(named, flags),
            files=lambda: [find_folder(named)],
        )


def load(named: str, flags: LeRobotFlags, on_stage: OnStage) -> Policy:
    """The policy of a folder; raises ConfigError, MissingDependency."""
    return load_policy(named, flags, on_stage)


def _title(named: str) -> str:
    try:
        return f"a LeRobot {read_folder(named).kind} policy"
    except ConfigError:  # its check tells
        return "a LeRobot policy"
