"""A server in the foreground of a terminal: what its user sees, from the start to the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from policyserve.cli.arguments.flags import naming_flag
from policyserve.cli.colours import coloured
from policyserve.cli.foreground.echo import without_control_characters
from policyserve.cli.foreground.log_flags import LogFlags
from policyserve.cli.foreground.progress import ProgressLine, stage_line
from policyserve.cli.foreground.start_screen import Screen
from policyserve.cli.foreground.terminal_log import TerminalFormatter
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, keep_output_harmless
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.events import Event
from policyserve.core.log import Log, ShortFormatter
from policyserve.logs.start import start_log, take_over_others
from policyserve.observe.statistics import counted, summary
from policyserve.server.config import ServerConfig

if TYPE_CHECKING:
    from policyserve.core.spec import PolicySpec
    from policyserve.server.server import Server

log = Log(__name__)

# How long a policy's Python code may keep the interpreter from the event loop, which needs it several times to answer
# one health probe. Python's own 5 ms add up.
_SWITCH_S = 1e-3
# What the screen shows, so that text on the same terminal need not say it again.
_ON_SCREEN = ("ready", "stopping", "stopped", "failed", "policy_spec_seen")


def serve_until_stopped(
    server: Server,
    title: str,
    origin: str,
    flags: LogFlags,
    blamed: Callable[[str], str] = str,
    origins: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run a server in the foreground and tell its user what it serves, from where; exits with 1 if it cannot.

    flags: what becomes of the log; exits with 2 if it cannot be written. blamed: puts the place where a flag's value
    stands into a complaint about that flag. origins: of several policies what each is, by its name.
    """
    keep_output_harmless()
    sys.setswitchinterval(_SWITCH_S)
    line = ProgressLine(is_wanted=flags.leaves_screen)
    with line.shared(), without_control_characters(sys.stdout), _screen(flags) as screen:
        _begin_log(flags, blamed)
        try:
            _stop_when_interrupted(server)
            _run_in_loop(_Shown(server, title, origin, line, screen, origins).run())
        except PolicyserveError as error:
            line.show("")
            line.end_line()
            told = blamed(naming_flag(error, _flags_of(ServerConfig)))
            log.error("%s", told, event=Event("failed", code=error.code))
            log.debug("the traceback", cause=error)
            if not flags.leaves_screen:
                sys.exit(FAILURE)
            complain(told, FAILURE)


@contextmanager
def _screen(flags: LogFlags) -> Iterator[Screen]:
    """Where people read what is served; nowhere, if programs read the terminal."""
    if flags.leaves_screen:
        yield Screen(sys.stdout)
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        yield Screen(nowhere)


def _begin_log(flags: LogFlags, blamed: Callable[[str], str]) -> None:
    settings = flags.settings
    formatter = ShortFormatter() if settings.level == logging.DEBUG else TerminalFormatter()
    try:
        start_log(settings, formatter, () if settings.is_for_all else _ON_SCREEN)
    except ConfigError as error:
        complain(blamed(naming_flag(error, _flags_of(LogFlags))), ARGUMENT_ERROR)


def _flags_of(kind: type[ServerConfig | LogFlags]) -> dict[str, str]:
    return {one.name: f"--{one.name.replace('_', '-')}" for one in fields(kind)}


class _Shown:
    """A server, and what its user sees of it from the start to the end."""

    def __init__(
        self,
        server: Server,
        title: str,
        origin: str,
        line: ProgressLine,
        screen: Screen,
        origins: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._server = server
        self._origins = origins
        self._line = line
        self._title = title
        self._is_watched = screen.stream.isatty()
        self._screen = screen
        self._heading = self._screen.heading(title, origin)
        self._started_at = time.monotonic()
        self._is_ready = self._is_stopping = False

    async def run(self) -> None:
        """Serve until a signal comes; raises PolicyserveError if it cannot."""
        if not self._is_watched:
            self._screen.show(self._heading)  # whoever reads it later has the lines of the log elsewhere
        self._server.on_stage = self._on_stage
        self._line.show(stage_line(f"loading {self._title}"))
        self._server.on_stop = self._on_stop
        self._server.statistics.is_short = self._is_watched and sys.stderr.isatty()
        await self._server.run(self._on_ready)
        self._line.show("")
        seconds = time.monotonic() - self._started_at
        told = summary(self._server.counters, seconds) if self._is_ready else "stopped before it was ready"
        self._screen.show([told])
        log.info("%s", told, event=Event("stopped", ms=seconds * 1e3))

    def _on_stage(self, stage: str) -> None:
        self._line.show(stage_line(stage))
        take_over_others()

    def _on_ready(self, spec: PolicySpec) -> None:
        self._line.show("")
        self._line.end_line()
        server, config = self._server, self._server.config
        if self._origins:
            paths = list(_paths(server, self._origins))
            first = next((f"/{one.name}" for one in server.catalogue if one.spec is not None), "")
            described = self._screen.several(paths, first, server.address, server.needs_key, config.live, config.record)
        else:
            described = self._screen.description(
                spec, server.address, server.needs_key, config.live, config.record, config.key_map.given
            )
        seconds = time.monotonic() - self._started_at
        ready = coloured("ready", "green", sys.stdout) + f" after {seconds:.1f} s; Ctrl-C stops it"
        gr00t = [] if server.gr00t is None else [server.gr00t.url]
        gr00t += [f"{port.url} for {name}" for name, port in server.gr00t_for.items()]
        beside = self._screen.row("gr00t", *gr00t) if gr00t else []
        beside += [] if server.lerobot is None else self._screen.row("lerobot", server.lerobot.place)
        self._screen.show([*(self._heading if self._is_watched else []), *described, *beside, ready])
        self._is_ready = True
        take_over_others()
        name = ", ".join(served.label for served in server.catalogue if served.spec is not None)
        event = Event("ready", policy=name, ms=seconds * 1e3)
        log.info("ready after %.1f s: %s at %s", seconds, name, self._server.address.url, event=event)
        gc.freeze()  # what loading made stays: the collector need not look at it while robots wait

    def _on_stop(self) -> None:
        """A signal came, for the first time or again."""
        self._line.start_line()
        in_flight = self._server.load
        if not self._is_stopping:
            log.info("stopping: %s in flight", counted(in_flight, "request"), event=Event("stopping"))
        if not self._is_stopping and in_flight:
            again = "Ctrl-C again" if self._is_watched else "a second signal"
            bound = f"up to {self._server.config.drain_s:g} s"
            self._screen.show([f"stopping: {counted(in_flight, 'request')} in flight, {bound}; {again} stops now"])
        self._is_stopping = True
        if not self._is_ready:
            self._server.on_stage = None
            self._line.show("  stopping")


def _paths(server: Server, origins: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Where the policies of a server with several are found, and what each is; the default one first."""
    for served in server.catalogue:
        told = origins[served.name]
        yield f"/{served.name}", told if served.failure is None else f"{served.failure}; it was to be {told}"
    for path, draws in server.catalogue.routes.items():
        shares = ", ".join(f"{name} {share:g}" for name, share in draws.split.shares.items())
        yield path, f"each session gets one of {shares}, drawn with seed {draws.seed}"


def _stop_when_interrupted(server: Server) -> None:
    """Have Ctrl-C stop the server before its loop hears signals: one interrupted while it is made has tracebacks."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda number, frame: server.stop())


def _run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, on the quicker loop if there is one: what it saves shows with policies of well under 1 ms."""
    _quickest_run()(main)  # outside of the `except` below: what is raised has nothing to do with uvloop


def _quickest_run() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        from uvloop import run
    except ImportError:  # Windows has none
        return asyncio.run
    return run
