"""`policyserve top` without its flags: a server's live data asked for, laid out, and shown in a terminal."""
