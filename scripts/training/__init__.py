"""Training of the demo policies that ship with policyserve: needs the extra `train`, the server never does."""
