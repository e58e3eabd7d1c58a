"""Policies that are Python objects: the user's own, named by module or file, and the demo that takes images."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy, as_policy, policy_from
from policyserve.core.recipe import OnStage, Recipe
from policyserve.policies.candidates import how_to_name, source_of
from policyserve.policies.importing import find_in, import_file, import_from_here, is_file, reason
from policyserve.policies.registry import OWN, Source

_DEMO = "policyserve.policies.fakes:demo_image"


@dataclass(frozen=True)
class NoFlags:
    """No flags: the object brings what it needs."""


@dataclass(frozen=True)
class ObjectAdapter:
    """Serves `package.module:name`, or `file.py:name`, found from the working directory too.

    The name is a policy, a function of one observation, or a class or function without arguments that makes one: one
    for all sessions, or one for each where what it makes has a reset() (core.policy.PerSessionPolicy).
    """

    target: str
    help = "a policy, function or class of your own; also my_policy.py:name"
    rest = ""
    flags = NoFlags

    def defaults(self, given: NoFlags | None) -> NoFlags:
        return NoFlags()

    def source(self, flags: NoFlags) -> Source:
        """Raises ConfigError where module or name are missing, or the file is no Python file."""
        place, _, name = self.target.rpartition(":")
        if self.target.endswith(".py"):
            raise ConfigError(how_to_name(self.target, Path(self.target).expanduser()))
        if place and not name:
            raise ConfigError(how_to_name(place, source_of(place)))
        if not place:
            raise ConfigError(f"expected {OWN}, got {self.target!r}")
        if not is_file(place):
            recipe = Recipe(f"{__name__}:load_from_module", {"module_name": place, "name": name})
            return Source(self.target, f"module {place}", recipe, is_own_code=True)
        path = Path(os.path.abspath(Path(place).expanduser()))
        if path.suffix != ".py":
            near = f" (did you mean {place}.py:{name}?)" if Path(f"{path}.py").is_file() else ""
            raise ConfigError(f"expected {OWN}, or file.py:name, got {self.target!r}{near}")
        recipe = Recipe(f"{__name__}:load_from_file", {"path": path, "name": name})
        return Source(self.target, f"file {path}", recipe, is_own_code=True)


@dataclass(frozen=True)
class DemoAdapter:
    """Serves the demo policy that takes an image and controls nothing."""

    target: str
    help = "a demo that takes a picture and numbers, and controls nothing"
    rest = ""
    flags = NoFlags

    def defaults(self, given: NoFlags | None) -> NoFlags:
        return NoFlags()

    def source(self, flags: NoFlags) -> Source:
        return Source("demo_image", "the policies that come with policyserve", Recipe(_DEMO))


def load_from_module(module_name: str, name: str, on_stage: OnStage) -> Policy:
    """The policy that `module_name:name` is, or makes; raises ConfigError."""
    on_stage(f"importing {module_name}")
    return load_object(find_in(import_from_here(module_name), name, module_name), f"{module_name}:{name}")


def load_from_file(path: Path, name: str, on_stage: OnStage) -> Policy:
    """The policy that a file calls `name`, or makes; raises ConfigError."""
    on_stage(f"importing {path.name}")
    return load_object(find_in(import_file(path), name, path.name), f"{path.name}:{name}")


def load_object(found: Any, called: str) -> Policy:
    """The policy that an object is, or makes; raises ConfigError. called: the object, in the words of the user."""
    if not makes_a_policy(found):
        return as_policy(found)
    try:
        return policy_from(found)
    except ConfigError:
        raise
    except Exception as error:  # a stranger's class
        raise ConfigError(f"{called}() failed: {reason(error)}") from error


def makes_a_policy(found: object) -> bool:
    """Whether it is a class, or a function that takes no observation: those are called to get the policy."""
    if not inspect.isfunction(found):
        return isinstance(found, type)
    parameters = inspect.signature(found).parameters.values()
    return all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
