"""`policyserve doctor` without its flags: one check of a policy server after the other, and what to do about each."""
