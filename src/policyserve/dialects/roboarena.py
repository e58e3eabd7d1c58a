"""RoboArena's dialect: greeted with six keys, observations that name an endpoint, a reset answered by a text.

DreamZero's clients speak it in msgpack_numpy's spelling: an answer has the spelling of its request. Servers before
February 2026, and DreamZero's, answer the array alone: that is the dialect `dreamzero`. docs/wire/roboarena.md has the
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.messages import Control, Message, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.answers import pack_readable
from policyserve.dialects.endpoints import Endpoints
from policyserve.dialects.marked_arrays import OPENPI, Spelling
from policyserve.dialects.packing import packed
from policyserve.dialects.policy_facts import roboarena_facts


class RoboArena(Endpoints):
    """The dialect's two halves; what it knows of a policy is how that counts its cameras."""

    name = "roboarena"
    must_name = True

    def greeted(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """The six keys and no other: RoboArena's own check refuses one more."""
        return roboarena_facts(metadata)

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Spelling | None) -> Message:
        """{"actions": (N, D), …extras} in the request's spelling; raises PolicyFailed for what cannot be read."""
        return pack_readable("answer", {"actions": chunk.actions, **chunk.extras}, context or OPENPI, self.name)

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> Message:
        """The text that ends a reset."""
        return "reset successful"


class DreamZero(RoboArena):
    """RoboArena's dialect as it was before February 2026: an answer is the array alone."""

    name = "dreamzero"

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Spelling | None) -> Message:
        """The actions, (N, D), as the whole message, in the request's spelling; extras have no place."""
        return packed(chunk.actions, default=(context or OPENPI).write)
