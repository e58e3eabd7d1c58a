"""Serve a vibe_rl checkpoint.

python scripts/serve_policy.py cartpole_ppo --checkpoint_dir runs/cartpole/checkpoints
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from policyserve.cli.serve import serve
from policyserve.cli.terminal import ARGUMENT_ERROR, complain
from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl import PRESETS, find_preset
from policyserve.policies.vibe_rl.adapter import PresetAdapter
from policyserve.server.config import ServerConfig

PROG = "serve_policy.py"


def main(argv: Sequence[str]) -> None:
    """Serve a preset's checkpoint to vibe_rl's clients; exits with 2 for wrong arguments, with 1 if it cannot."""
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        print(f"usage: {PROG} PRESET --checkpoint_dir PATH [flags]\n\nPRESET is one of {', '.join(PRESETS)}")
        return
    try:
        find_preset(name)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    adapter = PresetAdapter(name, needs_checkpoint=True)
    serve(adapter, argv[1:], prog=f"{PROG} {name}", server=ServerConfig(dialect="vibe_rl"))


if __name__ == "__main__":
    main(sys.argv[1:])
