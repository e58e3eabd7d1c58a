"""Names the function that makes a policy, and its arguments, so that any process can load the policy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeAlias

from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy, as_policy

# Called with the name of each stage ("loading", "warming up, batch 8"), from the thread that loads.
OnStage: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """A policy that any process can load: a function's name and its arguments.

    target: `package.module:function`; it is called with the arguments, and with on_stage if it has a parameter of that
    name, and returns what a PolicyServer takes. arguments: numbers, texts, lists and maps of them, paths, dataclasses.
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, on_stage: OnStage) -> Policy:
        """Load it here; raises ConfigError if the function is not there, and what it raises."""
        function = self._function()
        arguments = dict(self.arguments)
        if "on_stage" in inspect.signature(function).parameters:
            arguments["on_stage"] = on_stage
        return as_policy(function(**arguments))

    def _function(self) -> Any:
        module_name, _, name = self.target.partition(":")
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name != module_name:
                raise
            raise ConfigError(f"there is no module {module_name!r} here or on the Python path") from error
        for part in name.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            raise ConfigError(f"expected package.module:function, got {self.target!r}: there is no such function")
        return found


@dataclass(frozen=True)
class Newest:
    """The newest complete checkpoint of a training run. recipe: loads that one, whatever is written later.

    stamp: another one whenever the checkpoint's files are.
    """

    step: int
    recipe: Recipe
    stamp: Hashable
