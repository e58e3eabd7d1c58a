"""Wall-X's launch_serving: the founding command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from policyserve.cli.serve import serve
from policyserve.policies.wall_x.adapter import WallXAdapter
from policyserve.server.config import ServerConfig


def launch_serving(argv: Sequence[str] | None = None, *, prog: str = "launch_serving", dialect: str = "wall_x") -> None:
    """Serve until a signal; exits with 2 for wrong arguments, with 1 for a checkpoint that cannot be served.

    The flags are those of `policyserve serve wall-x`. prog: the command's name in messages. dialect: what `/` speaks
    where --dialect is not given.
    """
    flags = sys.argv[1:] if argv is None else argv
    serve(WallXAdapter("wall-x"), flags, prog=prog, server=ServerConfig(dialect=dialect))
