"""A server in the foreground of a terminal: what its user sees, from the start to the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from policyserve.cli.arguments.flags import naming_flag
from policyserve.cli.colours import coloured
from policyserve.cli.foreground.echo import without_control_characters
from policyserve.cli.foreground.progress import ProgressLine, stage_line
from policyserve.cli.foreground.start_screen import Screen
from policyserve.cli.foreground.terminal_log import TerminalFormatter
from policyserve.cli.terminal import FAILURE, complain, keep_output_harmless
from policyserve.core.errors import PolicyserveError
from policyserve.core.log import Log, ShortFormatter, log_to_stderr
from policyserve.observe.statistics import counted, summary
from policyserve.server.config import ServerConfig

if TYPE_CHECKING:
    from policyserve.core.spec import PolicySpec
    from policyserve.server.server import Server

log = Log(__name__)

# How long a policy's Python code may keep the interpreter from the event loop, which needs it several times to answer
# one health probe. Python's own 5 ms add up.
_SWITCH_S = 1e-3


def serve_until_stopped(
    server: Server, title: str, origin: str, debug: bool, blamed: Callable[[str], str] = str
) -> None:
    """Run a server in the foreground and tell its user what it serves, from where; exits with 1 if it cannot.

    blamed: puts the place where a flag's value stands into a complaint about that flag.
    """
    keep_output_harmless()
    sys.setswitchinterval(_SWITCH_S)
    line = ProgressLine()
    with line.shared(), without_control_characters(sys.stdout):
        log_to_stderr(logging.DEBUG if debug else logging.INFO, ShortFormatter() if debug else TerminalFormatter())
        try:
            _run_in_loop(_Shown(server, title, origin, line).run())
        except PolicyserveError as error:
            line.show("")
            log.debug("the traceback", cause=error)
            names = {one.name: f"--{one.name.replace('_', '-')}" for one in fields(ServerConfig)}
            complain(blamed(naming_flag(error, names)), FAILURE)


class _Shown:
    """A server, and what its user sees of it from the start to the end."""

    def __init__(self, server: Server, title: str, origin: str, line: ProgressLine) -> None:
        self._server = server
        self._line = line
        self._title = title
        self._is_watched = sys.stdout.isatty()
        self._screen = Screen(sys.stdout)
        self._heading = self._screen.heading(title, origin)
        self._started_at = time.monotonic()
        self._is_ready = self._is_stopping = False

    async def run(self) -> None:
        """Serve until a signal comes; raises PolicyserveError if it cannot."""
        if not self._is_watched:
            self._screen.show(self._heading)  # whoever reads it later has the lines of the log elsewhere
        self._server.on_stage = lambda stage: self._line.show(stage_line(stage))
        self._line.show(stage_line(f"loading {self._title}"))
        self._server.on_stop = self._on_stop
        self._server.statistics.is_short = sys.stderr.isatty()
        await self._server.run(self._on_ready)
        self._line.show("")
        seconds = time.monotonic() - self._started_at
        told = summary(self._server.counters, seconds) if self._is_ready else "stopped before it was ready"
        self._screen.show([told])

    def _on_ready(self, spec: PolicySpec) -> None:
        self._line.show("")
        shown = self._server.address, self._server.needs_key, self._server.config.record
        described = self._screen.description(spec, *shown)
        seconds = time.monotonic() - self._started_at
        ready = coloured("ready", "green", sys.stdout) + f" after {seconds:.1f} s; Ctrl-C stops it"
        self._screen.show([*(self._heading if self._is_watched else []), *described, ready])
        self._is_ready = True
        gc.freeze()  # what loading made stays: the collector need not look at it while robots wait

    def _on_stop(self) -> None:
        """A signal came, for the first time or again."""
        self._line.start_line()
        if not self._is_stopping and (in_flight := self._server.engine.load):
            again = "Ctrl-C again" if self._is_watched else "a second signal"
            bound = f"up to {self._server.config.drain_s:g} s"
            self._screen.show([f"stopping: {counted(in_flight, 'request')} in flight, {bound}; {again} stops now"])
        self._is_stopping = True
        if not self._is_ready:
            self._server.on_stage = None
            self._line.show("  stopping")


def _run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, on the quicker loop if there is one: what it saves shows with policies of well under 1 ms."""
    _quickest_run()(main)  # outside of the `except` below: what is raised has nothing to do with uvloop


def _quickest_run() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        from uvloop import run
    except ImportError:  # Windows has none
        return asyncio.run
    return run
