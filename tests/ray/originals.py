"""The original clients of the founding dialects for a Fleet, each a process with its client's packages alone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from policyserve.core.errors import ConnectionLost
from tests.cli.serving import ROOT
from tests.interop.environments import Environments
from tests.ray.fleet import Peer
from tests.shared import shared_path

_PROGRAM = ROOT / "tests" / "interop" / "programs" / "told_program.py"
_NAMES = ("openpi", "wall_x", "vibe_rl")


def originals(environments: Environments) -> Sequence[Callable[[str], Peer]]:
    """What opens a client of each dialect, given an edge's URL; their environments are made now."""
    document = str(shared_path("founding", "vibe_rl_policy_server.md"))
    return [partial(_open, environments.python(name), name, document) for name in _NAMES]


def _open(python: str, name: str, document: str, url: str) -> Peer:
    command = [python, str(_PROGRAM), name, url.rpartition(":")[2], document]
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=apart)

    def read() -> dict[str, Any]:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline() or '{"lost": "the program ended"}')
        if "lost" in told:
            raise ConnectionLost(told["lost"])
        if "refused" in told:
            raise RuntimeError(told["refused"])
        return told

    def ask(observation: dict[str, Any]) -> Any:
        assert process.stdin is not None
        process.stdin.write(json.dumps(observation["obs"].tolist()) + "\n")
        process.stdin.flush()
        return np.asarray(read()["answer"])

    def close() -> None:
        process.kill()
        process.communicate()

    try:
        read()
    except ConnectionLost:
        close()
        raise
    return Peer(ask, close)
