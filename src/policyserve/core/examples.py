"""An observation of zeros for a server of which only the greeting is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.errors import WireError
from policyserve.core.leaf_specs import ArraySpec, ImageSpec, LeafSpec, TextListSpec, TextSpec
from policyserve.core.messages import Observation


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


def _may_lack(leaf: Any) -> bool:
    return isinstance(leaf, Mapping) and bool(leaf.get("optional") or leaf.get("default") is not None)


def _leaf(leaf: Any, path: str) -> LeafSpec:
    try:
        if leaf["kind"] == "array":
            return ArraySpec(tuple(leaf["shape"]), leaf["dtype"])
        if leaf["kind"] == "image":
            return ImageSpec(leaf["height"], leaf["width"], tuple(leaf["layouts"]), tuple(leaf["dtypes"]))
        return {"text": TextSpec(), "text list": TextListSpec()}[leaf["kind"]]
    except (KeyError, TypeError) as error:
        raise WireError(path, "an array, an image or a text as policyserve describes it", f"{leaf!r:.60}") from error
