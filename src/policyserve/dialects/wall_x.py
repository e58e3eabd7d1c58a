"""Wall-X's dialect: metadata first, arrays as msgpack_numpy writes them, a reply's actions under `action`.

Newer clients of the family read `predict_action` with a batch axis of one, so a reply carries both.
docs/wire/wall_x.md has the bytes.
"""

from __future__ import annotations

from policyserve.core.messages import Frame, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects.marked_arrays import MSGPACK_NUMPY
from policyserve.dialects.metadata_first import MetadataFirst


class WallX(MetadataFirst):
    """The dialect's two halves; it has no state, one instance serves everybody."""

    name = "wall_x"
    spelling = MSGPACK_NUMPY
    action_keys = ("action", "predict_action", "actions")

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Frame:
        """Write {"action": (H, D), "predict_action": (1, H, D), …extras, "server_timing": …}."""
        return self.pack_reply({"action": chunk.actions, "predict_action": chunk.actions[None]}, chunk, timing)
