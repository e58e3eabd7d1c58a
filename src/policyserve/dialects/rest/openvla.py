"""OpenVLA's and OpenVLA-OFT's bodies: one picture and one action, or several of each. docs/wire/rest.md has them.

Their servers answer every error with status 200 and the text "error", which clients compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policyserve.core.errors import PolicyserveError
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Observation, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.rest.bodies import ReplyBody
from policyserve.dialects.rest.family import Family, picture, renamed, steps, text
from policyserve.dialects.rest.plain_errors import told_beside

_IMAGE, _FULL, _WRIST, _INSTRUCTION = "image", "full_image", "wrist", "instruction"


class OpenVLA(Family):
    """{"image", "instruction", "unnorm_key"?} -> one action, an array alone."""

    name = "openvla"
    one_action = True

    def observation(self, fields: dict[str, Any], limits: WireLimits) -> Observation:
        """`images/0`, `prompt`, and what else there is."""
        images = {"0": picture(fields.pop(_IMAGE, None), _IMAGE)}
        return {"images": images, "prompt": text(fields.pop(_INSTRUCTION, None), _INSTRUCTION), **fields}

    def answer(self, chunk: ActionChunk, timing: Timing) -> Any:
        """The action."""
        return np.asarray(chunk.actions)

    def refusal(self, error: PolicyserveError, detail: str) -> ReplyBody:
        """The text "error", with status 200."""
        return told_beside('"error"', 200, error)


class OpenVLAOFT(OpenVLA):
    """{"full_image", "…wrist…"*, "state"?, "instruction"} -> a list of actions, each an array."""

    name = "openvla_oft"
    one_action = False

    def observation(self, fields: dict[str, Any], limits: WireLimits) -> Observation:
        """`images/full_image`, those of wrists by their names, `state`, `prompt`, and what else there is."""
        names = [_FULL, *(key for key in fields if _WRIST in key)]
        images = {name: picture(fields.pop(name, None), name) for name in names}
        text(fields.get(_INSTRUCTION), _INSTRUCTION)
        return {"images": images, **renamed(fields, {_INSTRUCTION: "prompt"})}

    def answer(self, chunk: ActionChunk, timing: Timing) -> Any:
        """The chunk's steps, one by one."""
        return list(steps(chunk.actions))
