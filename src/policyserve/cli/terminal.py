"""What all commands do with a terminal: flags from dataclasses, one-line errors, logging, a server's life."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import re
import sys
import time
from collections.abc import Container, Coroutine, Sequence
from contextlib import redirect_stderr
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from policyserve.cli.keys import complaint_about_a_key, without_keys
from policyserve.core import log as core_log
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.log import Log
from policyserve.core.output import make_output_lossy
from policyserve.core.printable import one_line
from policyserve.server.config import ServerConfig

if TYPE_CHECKING:
    from policyserve.core.spec import PolicySpec
    from policyserve.server.listener import Address
    from policyserve.server.server import Server

log = Log(__name__)

ARGUMENT_ERROR = 2
FAILURE = 1
_BAR = 30  # columns
# How long a policy's Python code may keep the interpreter from the event loop, which needs it several times to answer
# one health probe. Python's own 5 ms add up.
_SWITCH_S = 1e-3
_STAGE_COLUMNS = 38
_LONGEST_LINE = 10_000  # a command to paste names every key of an observation

T = TypeVar("T")


def parse(
    arguments: type[T], prog: str, argv: Sequence[str], default: T | None = None, *, description: str | None = None
) -> T:
    """Read a dataclass of flags, `--a-b` and `--a_b` alike; exits with 2 and one line for a wrong one.

    description: what --help says first; None: the dataclass's docstring.
    """
    import tyro  # half of a command's start-up time: not before it is needed

    from policyserve.cli import server_flags

    keep_output_harmless()
    said = io.StringIO()
    start = tyro.MISSING_NONPROP if default is None else default
    try:
        with redirect_stderr(said), server_flags.registry():
            return tyro.cli(
                arguments,
                prog=prog,
                description=description,
                args=argv,
                default=start,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as exit_request:
        if not exit_request.code:
            raise
        told = complaint_about_a_key(argv) or f"{_first_sentence(said.getvalue())}; --help lists all flags"
        complain(f"{prog}: {told}", ARGUMENT_ERROR)
    except ConfigError as error:
        complain(f"{prog}: {_naming_flag(error)}", ARGUMENT_ERROR)


def complain(message: str, exit_code: int) -> NoReturn:
    """Print one line to stderr, without the passwords of URLs, and exit, by raising SystemExit."""
    print(one_line(without_keys(message), _LONGEST_LINE), file=sys.stderr)
    raise SystemExit(exit_code)


def keep_output_harmless() -> None:
    """Have nothing that is said to people end the program: not a full disk, a closed pipe, or a terminal's encoding.

    Descriptors 0 to 2 are opened where they are closed. Else a socket would get such a number, and a library that
    prints would write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the program
    make_output_lossy()


def log_to_stderr(debug: bool) -> None:
    """Configure logging for the process: info and above, or everything of ours with `debug`."""
    core_log.log_to_stderr(logging.DEBUG if debug else logging.INFO)


def serve_until_stopped(server: Server, title: str, origin: str, debug: bool) -> None:
    """Run a server in the foreground and tell its user what it serves, from where; exits with 1 if it cannot."""
    keep_output_harmless()
    log_to_stderr(debug)
    sys.setswitchinterval(_SWITCH_S)
    started_at = time.monotonic()
    print(f"policyserve serves {one_line(title)}\n  from    {one_line(origin)}", flush=True)
    if sys.stdout.isatty():
        server.on_stage = show_stage

    def on_ready(spec: PolicySpec) -> None:
        if server.on_stage is not None:
            print("\r\033[K", end="")
        for line in describe(spec, server.address, needs_key=server.needs_key):
            print(f"  {one_line(line, _LONGEST_LINE)}")
        gc.freeze()  # what loading made stays: the collector need not look at it while robots wait
        print(f"ready after {time.monotonic() - started_at:.1f} s; Ctrl-C stops it", flush=True)

    try:
        _run_in_loop(server.run(on_ready))
    except PolicyserveError as error:
        log.debug("the traceback", cause=error)
        complain(f"policyserve: {_naming_flag(error, {one.name for one in fields(ServerConfig)})}", FAILURE)


def _run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, on the quicker loop if there is one: what it saves shows with policies of well under 1 ms."""
    try:
        from uvloop import run
    except ImportError:  # Windows has none
        asyncio.run(main)
    else:
        run(main)


def show_stage(stage: str) -> None:
    """Show on one line of a terminal what loading is at, with a bar where the stage says `12 %`."""
    found = re.search(r"(\d+) %", stage)
    done = int(found.group(1)) * _BAR // 100 if found else 0
    bar = f"[{'#' * done}{'.' * (_BAR - done)}] " if found else ""
    end = "\n" if done == _BAR else ""  # what is logged next has a line of its own
    print(f"\r\033[K  {bar}{one_line(stage)[:_STAGE_COLUMNS]}", end=end, flush=True)


def _naming_flag(error: PolicyserveError, names: Container[str] | None = None) -> str:
    """The error's text, with the flag instead of the field that it begins with. names: of fields; None: any is one."""
    name, colon, rest = str(error).partition(": ")
    is_field = name.isidentifier() if names is None else name in names
    return f"--{name.replace('_', '-')}{colon}{rest}" if is_field and colon else str(error)


def _first_sentence(box: str) -> str:
    """The words of the frame that tyro draws around an error, without the frame; suggestions in brackets."""
    rows = [row for line in box.splitlines() if (row := line.strip(" │"))][1:]  # the first is the frame's title
    sections: list[list[str]] = [[]]
    for row in rows:
        if row.strip("─-╭╮╰╯ "):  # tyro draws in ASCII where stdout is not UTF-8
            sections[-1].append(row)
        elif sections[-1]:
            sections.append([])
    message = " ".join(sections[0]).rstrip(".") or "the arguments cannot be read"
    near = [row.split(",")[0].split(" ")[0] for section in sections[1:] for row in section if row.startswith("--")]
    message = re.sub(r"^[Ee]rror parsing \w+: ", "", message)  # a check of ours, in its own words
    message = message[0].lower() + message[1:]
    return f"{message} (did you mean {near[0]}?)" if near and near[0] not in message else message


def describe(spec: PolicySpec, address: Address, needs_key: bool = False) -> list[str]:
    """What a person who starts a server wants to know, line by line."""
    url = address.reachable.url
    lines = [
        f"takes   {path}: {leaf}{' (optional)' if leaf.optional else ''}" + (f"  {leaf.doc}" if leaf.doc else "")
        for path, leaf in spec.leaves.items()
    ]
    gives = "any finite numbers" if spec.action is None else str(spec.action)
    steps = "" if spec.horizon is None else f", chunks of {spec.horizon}"
    doc = f"  {spec.action.doc}" if spec.action and spec.action.doc else ""
    return [
        *(lines or ["takes   any observation (the policy declares no spec)"]),
        f"gives   {gives}{steps}{doc}",
        f"url     {url}   health: {address.reachable.health}",
        f"client  {_client_line(spec, url, needs_key)}",
    ]


def _client_line(spec: PolicySpec, url: str, needs_key: bool) -> str:
    """A command to paste: it asks for one action with zeros."""
    import numpy as np

    needed = {
        path: leaf for path, leaf in spec.leaves.items() if not leaf.optional and not getattr(leaf, "default", "")
    }
    examples = {path: leaf.example() for path, leaf in needed.items()} or {"obs": np.zeros(4, np.float32)}
    items = [
        f"'{path}': " + (f"np.zeros({value.shape}, '{value.dtype}')" if isinstance(value, np.ndarray) else repr(value))
        for path, value in examples.items()
    ]
    key = ", api_key='KEY'" if needs_key else ""
    client = f"policyserve.Client('{url}'{key})"
    code = f"import numpy as np, policyserve; print({client}.infer({{{', '.join(items)}}}).actions)"
    return f'python -c "{code}"'
