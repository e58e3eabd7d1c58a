"""`policyserve replay` without its flags: asks what was recorded again, and compares the actions."""
