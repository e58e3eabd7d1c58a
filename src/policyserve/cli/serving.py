"""A server in the foreground of a terminal: what its user sees, from the start to the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import Coroutine
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from policyserve.cli.flags import naming_flag
from policyserve.cli.progress import show_stage
from policyserve.cli.start_screen import describe
from policyserve.cli.terminal import FAILURE, LONGEST_LINE, complain, keep_output_harmless
from policyserve.core.errors import PolicyserveError
from policyserve.core.log import Log, log_to_stderr
from policyserve.core.printable import one_line
from policyserve.server.config import ServerConfig

if TYPE_CHECKING:
    from policyserve.core.spec import PolicySpec
    from policyserve.server.server import Server

log = Log(__name__)

# How long a policy's Python code may keep the interpreter from the event loop, which needs it several times to answer
# one health probe. Python's own 5 ms add up.
_SWITCH_S = 1e-3


def serve_until_stopped(server: Server, title: str, origin: str, debug: bool) -> None:
    """Run a server in the foreground and tell its user what it serves, from where; exits with 1 if it cannot."""
    keep_output_harmless()
    log_to_stderr(logging.DEBUG if debug else logging.INFO)
    sys.setswitchinterval(_SWITCH_S)
    started_at = time.monotonic()
    print(f"policyserve serves {one_line(title)}\n  from    {one_line(origin)}", flush=True)
    if sys.stdout.isatty():
        server.on_stage = show_stage

    def on_ready(spec: PolicySpec) -> None:
        if server.on_stage is not None:
            print("\r\033[K", end="")
        for line in describe(spec, server.address, needs_key=server.needs_key):
            print(f"  {one_line(line, LONGEST_LINE)}")
        gc.freeze()  # what loading made stays: the collector need not look at it while robots wait
        print(f"ready after {time.monotonic() - started_at:.1f} s; Ctrl-C stops it", flush=True)

    try:
        _run_in_loop(server.run(on_ready))
    except PolicyserveError as error:
        log.debug("the traceback", cause=error)
        names = {one.name: f"--{one.name.replace('_', '-')}" for one in fields(ServerConfig)}
        complain(naming_flag(error, names), FAILURE)


def _run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, on the quicker loop if there is one: what it saves shows with policies of well under 1 ms."""
    try:
        from uvloop import run
    except ImportError:  # Windows has none
        asyncio.run(main)
    else:
        run(main)
