"""A spec, and an observation of zeros, for a server of which only the greeting is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from policyserve.core.errors import ConfigError, WireError
from policyserve.core.leaf_specs import ArraySpec, ImageSpec, LeafSpec, TextListSpec, TextSpec
from policyserve.core.messages import Observation
from policyserve.core.spec import PolicySpec


def example_of(described: Mapping[str, Any]) -> Observation:
    """Zeros, black images and empty texts, for the `spec` of a greeting (PolicySpec.describe).

    What an observation may lack is left out. Empty where the policy declares no spec. Raises WireError for what is no
    such description.
    """
    observation = described.get("observation")
    if not isinstance(observation, Mapping):
        return {}
    leaves = {str(path): _leaf(leaf, str(path)) for path, leaf in observation.items() if not _may_lack(leaf)}
    return {path: leaf.example() for path, leaf in leaves.items()}


def spec_of(described: Mapping[str, Any], name: str = "the server's policy") -> PolicySpec:
    """The spec that the `spec` of a greeting describes (PolicySpec.describe), as far as it does.

    An observation of None where the policy declares none. Raises WireError for what is no such description.
    """
    observation, action = described.get("observation"), described.get("action")
    leaves = {str(path): _whole_leaf(leaf, str(path)) for path, leaf in _items(observation)}
    steps = described.get("horizon")
    try:
        doc = "" if action is None else str(action.get("doc") or "")
        told = None if action is None else ArraySpec(tuple(action["shape"]), action["dtype"], doc=doc)
        aliases = {str(alias): str(path) for alias, path in _items(described.get("aliases")) if str(path) in leaves}
        spec = PolicySpec(name, leaves or None, told, horizon=steps, aliases=aliases)
        return replace(spec, **_batches(described))
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise WireError("action", "an action and a horizon as policyserve describes them", f"{action!r:.60}") from error


def _batches(described: Mapping[str, Any]) -> dict[str, int]:
    """How many inputs it takes; a recording tells it, a greeting does not."""
    return {name: described[name] for name in ("max_batch", "max_client_batch") if name in described}


def _items(observation: Any) -> Iterable[tuple[Any, Any]]:
    return observation.items() if isinstance(observation, Mapping) else ()


def _whole_leaf(leaf: Any, path: str) -> LeafSpec:
    """A leaf with whether it may be left out, and its default."""
    made = _leaf(leaf, path)
    if isinstance(made, TextSpec) and isinstance(leaf.get("default"), str):
        made = replace(made, default=leaf["default"])
    return replace(made, optional=bool(leaf.get("optional")), doc=str(leaf.get("doc") or ""))


def _may_lack(leaf: Any) -> bool:
    return isinstance(leaf, Mapping) and bool(leaf.get("optional") or leaf.get("default") is not None)


def _leaf(leaf: Any, path: str) -> LeafSpec:
    try:
        if leaf["kind"] == "array":
            return ArraySpec(tuple(leaf["shape"]), leaf["dtype"])
        if leaf["kind"] == "image":
            return ImageSpec(leaf["height"], leaf["width"], tuple(leaf["layouts"]), tuple(leaf["dtypes"]))
        return {"text": TextSpec(), "text list": TextListSpec()}[leaf["kind"]]
    except (KeyError, TypeError, ConfigError) as error:
        raise WireError(path, "an array, an image or a text as policyserve describes it", f"{leaf!r:.60}") from error
