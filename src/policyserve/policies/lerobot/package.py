"""Policies of types that are not ours, through the lerobot package of the environment that policyserve runs in."""

from __future__ import annotations

from importlib.util import find_spec

from policyserve.core.errors import MissingDependency
from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage
from policyserve.policies.lerobot.config import NATIVE, PolicyConfig
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.processors import check_for_package, has_processors

_PACKAGE = "lerobot"


def check_package(config: PolicyConfig, flags: LeRobotFlags) -> None:
    """Raise ConfigError for files that the package must not be handed, MissingDependency where it is not installed."""
    if has_processors(config.folder):
        check_for_package(config.folder)
    if find_spec(_PACKAGE) is None:
        told = f"{config.folder} is a LeRobot {config.kind} policy; policyserve runs {' and '.join(NATIVE)} itself"
        advice = "install policyserve where lerobot is installed, with the extras of this type"
        raise MissingDependency(_PACKAGE, _PACKAGE, f"{told}: {advice}")


def load_packaged(config: PolicyConfig, flags: LeRobotFlags, on_stage: OnStage) -> Policy:
    """Load a policy through the package."""
    raise NotImplementedError
