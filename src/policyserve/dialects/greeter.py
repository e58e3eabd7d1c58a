"""The greeting of a client that waits for one and has not said which family it is of: all families read it.

It is openpi's, with what starVLA's, RoboArena's and MolmoSpaces' clients look for beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.messages import Message
from policyserve.dialects.openpi import OpenPI
from policyserve.dialects.policy_facts import chunk_size, model_name, roboarena_facts


class Greeter(OpenPI):
    """Greets as openpi does, and tells more."""

    def greeting(self, metadata: Mapping[str, Any]) -> Message:
        """Above the metadata `model_name`, `action_chunk_size` and RoboArena's six keys, unless the policy has them."""
        facts = {"model_name": model_name(metadata), "action_chunk_size": chunk_size(metadata)}
        return super().greeting({**facts, **roboarena_facts(metadata), **metadata})
