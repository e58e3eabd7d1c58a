"""The dialect of vLLM-Omni's endpoint for robots, on its own path: RoboArena's requests, other answers.

An answer is the array alone, or a map of the action's parts where the policy declares them; a reset and an error are
answered by a map, and the connection stays. docs/wire/vllm_omni.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.core.dialect import ErrorReply, close_code_of, close_reason, error_text
from policyserve.core.errors import PolicyFailed, PolicyserveError, WrongDialect
from policyserve.core.messages import Control, Message, Reply, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.action_groups import groups_of, side_by_side, split
from policyserve.dialects.endpoints import Endpoints, shift_for
from policyserve.dialects.marked_arrays import OPENPI
from policyserve.dialects.packing import packed
from policyserve.dialects.policy_facts import roboarena_facts


class VLLMOmni(Endpoints):
    """The dialect's two halves. groups: the parts of a policy's action; empty: it is one array."""

    name = "vllm_omni"
    paths = ("v1/realtime/robot/openpi",)
    must_name = False

    def __init__(self, shift: int = 0, groups: Mapping[str, int] | None = None) -> None:
        super().__init__(shift)
        self._groups = dict(groups or {})

    def for_policy(self, metadata: Mapping[str, Any]) -> VLLMOmni:
        """Answers hold the parts of the action that the policy declares."""
        return type(self)(shift_for(metadata), groups_of(metadata))

    def greeted(self, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        """The policy's own map, and above it RoboArena's keys, which the clients of this endpoint read."""
        return {**roboarena_facts(metadata), **metadata}

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> Message:
        """The actions, (N, D) float32, or a map of their parts, in openpi's spelling whatever the request's.

        Raises PolicyFailed for an action that float32 cannot hold.
        """
        with np.errstate(over="ignore"):
            actions = chunk.actions.astype(np.float32, copy=False)
        if not np.isfinite(actions).all():
            raise PolicyFailed("the action cannot be written: vLLM-Omni's are float32, and it is beyond them")
        return packed(split(actions, self._groups) if self._groups else actions, default=OPENPI.write)

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> Message:
        """The map that ends a reset."""
        return packed({"status": "reset successful"})

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        """A map of type `error`; the connection stays, but for a client of another family."""
        told = error_text(error) + (f"\n{detail}" if detail else "")
        message = packed({"type": "error", "message": told}, unicode_errors="replace")
        if isinstance(error, WrongDialect):
            return ErrorReply(message, close_code_of(error), close_reason(error))
        return ErrorReply(message)

    def reply_of(self, fields: dict[str, Any]) -> Reply:
        """Parts of an action are joined along their last axis, in their order."""
        if "actions" in fields:
            return super().reply_of(fields)
        return Reply(side_by_side(fields), {}, fields)
