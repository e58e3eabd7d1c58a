"""OpenVLA's and OpenVLA-OFT's bodies: one picture and one action, or several of each. docs/wire/rest.md has them.

Their servers answer every error with status 200 and the text "error", which clients compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policyserve.core.errors import BadObservation, PolicyserveError, names_told
from policyserve.core.leaf_specs import name_of
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Heard, Message, Observation, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.dialects.rest.asking import some, sort
from policyserve.dialects.rest.bodies import ReplyBody
from policyserve.dialects.rest.family import Family, picture, renamed, steps, text
from policyserve.dialects.rest.plain_errors import with_header

_MOST_PICTURES = 16
_IMAGE, _FULL, _WRIST, _INSTRUCTION = "image", "full_image", "wrist", "instruction"


class OpenVLA(Family):
    """{"image", "instruction", "unnorm_key"?} -> one action, an array alone.

    unnorm_keys: those that the policy lists; empty: any is taken.
    """

    name = "openvla"
    one_action = True

    def __init__(self, unnorm_keys: Sequence[str] = ()) -> None:
        self._unnorm_keys = tuple(unnorm_keys)

    def for_policy(self, metadata: Mapping[str, Any]) -> OpenVLA:
        """The same for a policy that lists the data sets whose statistics it knows, as starVLA's servers tell them."""
        keys = metadata.get("available_unnorm_keys")
        return type(self)([key for key in keys if isinstance(key, str)]) if isinstance(keys, (list, tuple)) else self

    def read_message(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Heard:
        heard = super().read_message(message, limits)
        key = heard.observation.get("unnorm_key") if isinstance(heard, Request) else None
        if key is None or not self._unnorm_keys or (isinstance(key, str) and key in self._unnorm_keys):
            return heard
        known = f"one of {names_told(self._unnorm_keys)}"
        return Unreadable(BadObservation("unnorm_key", known, name_of(key)), heard.context)

    def observation(self, fields: dict[str, Any], limits: WireLimits) -> Observation:
        """`images/0`, `prompt`, and what else there is."""
        images = {"0": picture(fields.pop(_IMAGE, None), _IMAGE)}
        return {"images": images, "prompt": text(fields.pop(_INSTRUCTION, None), _INSTRUCTION), **fields}

    def answer(self, chunk: ActionChunk, timing: Timing) -> Any:
        """The action."""
        return np.asarray(chunk.actions)

    def refusal(self, error: PolicyserveError, detail: str) -> ReplyBody:
        """The text "error", with status 200."""
        return with_header('"error"', 200, error)

    def body(self, observation: Observation) -> Any:
        asked = sort(observation)
        (image,) = some(asked.pictures, 1, _IMAGE)
        return {_IMAGE: image, _INSTRUCTION: asked.prompt, **asked.state, **asked.rest}


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

    def body(self, observation: Observation) -> Any:
        """The first picture, or the one of that name, is `full_image`; the others are of wrists."""
        asked = sort(observation)
        some(asked.pictures, _MOST_PICTURES, _FULL)
        full = _FULL if _FULL in asked.pictures else next(iter(asked.pictures))
        images = {_FULL: asked.pictures.pop(full)}
        images.update((key if _WRIST in key else f"{_WRIST}_{key}", one) for key, one in asked.pictures.items())
        return {**images, **asked.state, _INSTRUCTION: asked.prompt, **asked.rest}
