"""Stand-ins for other servers and clients; each program runs in a process of its own and imports nothing of ours.

(The vibe_rl stand-in reads the demo's weights with policyserve before it serves.)
"""
