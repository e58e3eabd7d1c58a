"""Wall-X's serving names, provided by policyserve."""

from policyserve.compat.originals import refuse_beside_originals

refuse_beside_originals()
