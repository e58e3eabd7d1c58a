"""openpi's dialect: metadata first, arrays as `__ndarray__` maps, a reply's actions under `actions`.

docs/wire/openpi.md has the bytes.
"""

from __future__ import annotations

from policyserve.core.arrays import Array
from policyserve.dialects.marked_arrays import OPENPI
from policyserve.dialects.metadata_first import MetadataFirst


class OpenPI(MetadataFirst):
    """The dialect's two halves; it has no state, one instance serves everybody."""

    name = "openpi"
    spelling = OPENPI
    action_keys = ("actions", "action")

    def action_entries(self, actions: Array) -> dict[str, Array]:
        """actions: (H, D)."""
        return {"actions": actions}
