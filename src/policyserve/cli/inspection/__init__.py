"""`policyserve inspect` without its flags: what a policy or a server is, found out, as rows and as JSON."""
