"""What RoboArena's dialect and vLLM-Omni's have in common: an observation that says which endpoint is called.

    {"observation/joint_position": array, …, "prompt": text, "session_id": text, "endpoint": "infer" or "reset"}

`session_id` names the episode that a request is of; several may share a connection. Arrays are read in either family's
spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from policyserve.core.arrays import Placed
from policyserve.core.errors import RemoteError, WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, Heard, Message, Observation, Part, Reply, Request
from policyserve.dialects.conversing import Conversing, episode_of, read_answer, read_map, told_timing
from policyserve.dialects.marked_arrays import OPENPI
from policyserve.dialects.pieces import InPieces, parts_of
from policyserve.dialects.policy_facts import cameras_of

_CAMERA = re.compile(r"^(observation/exterior_image_)(\d{1,3})(_left|_right)$", re.ASCII)


class Endpoints(InPieces, Conversing):
    """The order and form of messages; a family adds how its answers look.

    must_name: whether a request without `endpoint` is refused. shift: by how much the policy counts exterior cameras
    from a higher number than the clients, which begin with 0.
    """

    must_name: bool

    def __init__(self, shift: int = 0) -> None:
        self._shift = shift

    def read_message(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Heard:
        """Read an observation, which keeps its wire names, or a reset; any other endpoint is taken for `infer`."""
        fields, spelling = read_map(message, limits, self.name, placed)
        endpoint = fields.pop("endpoint", None)
        if not isinstance(endpoint, str) and (endpoint is not None or self.must_name):
            got = "none" if endpoint is None else type(endpoint).__name__
            hint = "openpi's clients connect to /openpi" if endpoint is None else ""
            raise WireError("endpoint", "a text, infer or reset", got, hint)
        episode = episode_of(fields.get("session_id"), "session_id")
        if endpoint == "reset":  # of no episode: the originals forget all
            return Control("reset", spelling, ends=episode, ends_all=fields.get("session_id") is None)
        observation = self._shifted(fields) if self._shift else fields
        return Request(observation, context=spelling, episode=episode)

    def for_policy(self, metadata: Mapping[str, Any]) -> Endpoints:
        """The policy may count its exterior cameras from 1 on."""
        shift = shift_for(metadata)
        return type(self)(shift) if shift else self

    def request_parts(self, observation: Observation) -> list[Part]:
        """Write an observation for the endpoint `infer`; raises WireError for what the wire cannot carry."""
        named = {**observation, "endpoint": "infer"} if isinstance(observation, Mapping) else observation
        return parts_of(named, OPENPI)

    def reply_fields(self, message: Message, placed: list[Placed] | None = None) -> dict[str, Any]:
        """Read an answer: a map, or an array alone, which is `actions` then."""
        found = read_answer(message, placed)
        if isinstance(found, dict):
            kind = found.get("type")
            if isinstance(kind, str) and kind == "error":
                raise RemoteError(str(found.get("message")))
            return found
        if hasattr(found, "shape"):
            return {"actions": found}
        raise WireError("", "a map or an array", type(found).__name__)

    def reply_of(self, fields: dict[str, Any]) -> Reply:
        actions = fields.get("actions")
        if actions is None:
            raise WireError("actions", "actions", f"keys {', '.join(map(repr, fields))[:200]}")
        return Reply(actions, told_timing(fields.get("server_timing")), fields)

    def _shifted(self, fields: dict[str, Any]) -> dict[str, Any]:
        if _lowest(fields) != 0:  # a client that counts as the policy does
            return fields
        return {_CAMERA.sub(self._renumbered, key): value for key, value in fields.items()}

    def _renumbered(self, camera: re.Match[str]) -> str:
        return f"{camera[1]}{int(camera[2]) + self._shift}{camera[3]}"


def shift_for(metadata: Mapping[str, Any]) -> int:
    """1 for a policy that counts its exterior cameras from 1 on, as openpi's DROID policies do; else 0."""
    return int(_lowest(cameras_of(metadata)) == 1)


def _lowest(names: Iterable[str]) -> int | None:
    """The lowest number of an exterior camera among the names."""
    return min((int(camera[2]) for name in names if (camera := _CAMERA.match(name))), default=None)
