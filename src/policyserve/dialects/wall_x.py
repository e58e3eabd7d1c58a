"""Wall-X's dialect: metadata first, arrays as msgpack_numpy writes them, a reply's actions under `action`.

Newer clients of the family read `predict_action` with a batch axis of one, so a reply carries both.
docs/wire/wall_x.md has the bytes.
"""

from __future__ import annotations

from policyserve.core.arrays import Array
from policyserve.dialects.marked_arrays import MSGPACK_NUMPY
from policyserve.dialects.metadata_first import MetadataFirst


class WallX(MetadataFirst):
    """The dialect's two halves; it has no state, one instance serves everybody."""

    name = "wall_x"
    spelling = MSGPACK_NUMPY
    action_keys = ("action", "predict_action", "actions")
    greeted_with = ("action_dim", "pred_horizon", "device", "predict_mode", "env")

    def action_entries(self, actions: Array) -> dict[str, Array]:
        """action: (H, D), predict_action: (1, H, D)."""
        return {"action": actions, "predict_action": actions[None]}
