"""A policy in a program, by what `policyserve serve` takes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from policyserve.core.errors import ConfigError, names_told
from policyserve.core.nearest import nearest
from policyserve.core.policy import Policy
from policyserve.policies import registry
from policyserve.policies.registry import Source


def load_policy(target: str, **flags: Any) -> Policy:
    """Load a policy by name, scheme or path, as `policyserve serve` does: "onnx:policy.onnx", "cartpole_ppo".

    flags: its own, as help lists them, with `_` for `-`: device="cuda", max_batch=8. What it gives answers infer(), and
    is what PolicyServer and start() take. Raises ConfigError for what cannot be loaded, MissingDependency for a package
    that is not installed, and what loading raises.
    """
    return _source(target, flags).recipe(lambda _stage: None)


def _source(target: str, flags: dict[str, Any]) -> Source:
    adapter = registry.find(target)
    default = adapter.defaults(None)
    known = [one.name for one in fields(default) if one.init]
    for name in flags:
        if name not in known:
            near = nearest(name, known)
            told = f"did you mean {near}?" if near else f"expected {names_told(known, 300)}"
            raise ConfigError(f"{target} has no flag {name!r}: {told}")
    better = adapter.defaults(replace(default, **flags))
    return adapter.source(replace(better, **flags))
