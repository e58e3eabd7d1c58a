"""Serve a vibe_rl checkpoint.

python scripts/serve_policy.py cartpole_ppo --checkpoint_dir runs/cartpole/checkpoints
"""

from __future__ import annotations

import sys

from policyserve.cli.serve import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    pinned = [] if any(argument.startswith("--dialect") for argument in arguments) else ["--dialect", "vibe_rl"]
    main([*arguments, *pinned] if arguments else [], prog="serve_policy.py", needs_checkpoint=True)
