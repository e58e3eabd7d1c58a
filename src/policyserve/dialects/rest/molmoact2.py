"""MolmoAct2's bodies: named cameras, a chunk as one array. docs/wire/rest.md has them."""

from __future__ import annotations

from typing import Any

from policyserve.core.errors import PolicyserveError
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Observation, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.rest.asking import sort
from policyserve.dialects.rest.bodies import ReplyBody
from policyserve.dialects.rest.family import Family, picture, renamed, steps, text
from policyserve.dialects.rest.plain_errors import plain_error

CAMERA = "_cam"
_STEPS = 10  # of denoising, as its clients ask for


class MolmoAct2(Family):
    """{"top_cam", "left_cam", "right_cam", "state", "instruction", "num_steps"} -> {"actions": (T, D) array}."""

    name = "molmoact2"
    is_spaced = True

    def observation(self, fields: dict[str, Any], limits: WireLimits) -> Observation:
        """`images/top_cam` and the other cameras, `state`, `prompt`, `num_steps`, and what else there is."""
        images = {name: picture(fields.pop(name), name) for name in [*fields] if name.endswith(CAMERA)}
        text(fields.get("instruction"), "instruction")
        return {"images": images, **renamed(fields, {"instruction": "prompt"})}

    def answer(self, chunk: ActionChunk, timing: Timing) -> Any:
        """The chunk, and what else the policy says, such as `dt_ms`."""
        return {"actions": steps(chunk.actions), **chunk.extras}

    def refusal(self, error: PolicyserveError, detail: str) -> ReplyBody:
        """A status of 4xx or 5xx, which clients raise."""
        return plain_error(error, detail)

    def body(self, observation: Observation) -> Any:
        asked = sort(observation)
        images = {(name if name.endswith(CAMERA) else name + CAMERA): one for name, one in asked.pictures.items()}
        return {**images, "instruction": asked.prompt, **asked.state, "num_steps": _STEPS, **asked.rest}
