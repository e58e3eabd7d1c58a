"""A LeRobot policy on the command line: `lerobot:PATH`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy
from policyserve.core.recipe import Newest, OnStage, Recipe
from policyserve.policies.files import stamp_of
from policyserve.policies.lerobot.layout import CONFIG, WEIGHTS, find_folder, newest_folder, step_of
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
            newest=partial(_newest, named, flags),
        )


def load(named: str, flags: LeRobotFlags, on_stage: OnStage) -> Policy:
    """The policy of a folder; raises ConfigError, MissingDependency."""
    return load_policy(named, flags, on_stage)


def _newest(named: str, flags: LeRobotFlags) -> Newest | None:
    """The newest complete checkpoint, for --follow."""
    folder = newest_folder(named)
    step = None if folder is None else step_of(folder)
    if folder is None or step is None:
        return None
    recipe = Recipe(f"{__name__}:load", {"named": str(folder), "flags": flags})
    return Newest(step, recipe, stamp_of(folder / CONFIG, folder / WEIGHTS))


def _title(named: str) -> str:
    try:
        return f"a LeRobot {read_folder(named).kind} policy"
    except ConfigError:  # its check tells
        return "a LeRobot policy"
