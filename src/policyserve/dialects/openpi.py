"""openpi's dialect: metadata first, arrays as `__ndarray__` maps, a reply's actions under `actions`.

Clients of NVIDIA's Cosmos 3 server for RoboLab look for them under `action`: that is the dialect `cosmos`.
docs/wire/openpi.md has the bytes.
"""

from __future__ import annotations

import numpy as np

from policyserve.core.arrays import Array, Placed
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message, Request
from policyserve.dialects.marked_arrays import OPENPI
from policyserve.dialects.metadata_first import MetadataFirst

_ROWS = ("observation/joint_position", "observation/gripper_position")  # that Cosmos' clients send as rows


class OpenPI(MetadataFirst):
    """The dialect's two halves; it has no state, one instance serves everybody."""

    name = "openpi"
    spelling = OPENPI
    action_keys = ("actions", "action")

    def action_entries(self, actions: Array) -> dict[str, Array]:
        """actions: (H, D)."""
        return {"actions": actions}


class Cosmos(OpenPI):
    """openpi's dialect as Cosmos 3's clients speak it: an arm's state is a row, and actions are `action`, too."""

    name = "cosmos"

    def read_request(
        self, message: Message, limits: WireLimits = DEFAULT_LIMITS, placed: list[Placed] | None = None
    ) -> Request:
        """As openpi's; the arm's (1, 7) and the gripper's (1, 1) are (7,) and (1,) then, as openpi's policies want."""
        request = super().read_request(message, limits, placed)
        rows = {key: request.observation.get(key) for key in _ROWS}
        alone = {key: row[0] for key, row in rows.items() if isinstance(row, np.ndarray) and row.shape[:-1] == (1,)}
        return request._replace(observation={**request.observation, **alone}) if alone else request

    def action_entries(self, actions: Array) -> dict[str, Array]:
        """actions: (H, D), under the name of either family."""
        return {"actions": actions, "action": actions}
