"""What a policy without a spec was seen to take: printed once, as a spec to paste, and written to a file if asked."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import fill

from policyserve.cli.colours import coloured
from policyserve.cli.new_modules import write_new_module
from policyserve.core.errors import ConfigError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.observer import Observer
from policyserve.core.printable import one_line
from policyserve.core.spec_from_values import SeenPolicy
from policyserve.server.server import Server

log = Log(__name__)

_COLUMNS = 80
_GAIN = (
    "with it: mistakes are explained, the policy is warm before a robot asks, and several robots can share a call of "
    "it (StackedPolicy)"
)
_NO_BREAK = "\u00a0"


def show_seen_spec(server: Server, file: Path | None, is_printed: bool = True) -> None:
    """Have the server show what its policy was seen to take, if that declares no spec. file: where to write it, too.

    is_printed: show it on stdout, and not in the log alone.

    Of a policy that is loaded anew it is shown where it differs, and not written again.
    """
    told: list[str] = []

    def show(seen: SeenPolicy) -> None:
        if seen.source() not in told:
            log_it(seen)
            _show(seen, None if told else file, is_printed)
            told.append(seen.source())

    log_it, server.on_seen = server.on_seen, show
    if file is not None:
        server.observers.add(_Unwritten(server, file))


def module_of(seen: SeenPolicy) -> str:
    """A module that has the spec as `spec`."""
    told = f"# What {one_line(seen.name)} was seen to take and give, by its first answer: "
    return f"{_wrapped(told, seen, '# ')}\n\n{seen.source()}"


def _show(seen: SeenPolicy, file: Path | None, is_printed: bool) -> None:
    if is_printed:
        print(coloured("seen:", "green", sys.stdout) + _wrapped("seen: ", seen).removeprefix("seen:"))
    if file is None:
        if is_printed:
            print(f"{fill(_GAIN, _COLUMNS, subsequent_indent=' ' * 9)}\n\n{seen.source()}", flush=True)
        return
    try:
        write_new_module(file, module_of(seen))
    except ConfigError as error:
        log.error("--write-spec: %s", error)
    else:
        if is_printed:
            print(f"its spec is written to {file}", flush=True)


def _wrapped(first: str, seen: SeenPolicy, indent: str = " " * 6) -> str:
    """What was seen, behind `first`, in as many lines as it needs; no value's kind and shape are parted."""
    values = [value.replace(" ", _NO_BREAK) for value in seen.taken]
    text = f"{first}{', '.join(values)} -> {seen.given.replace(' ', _NO_BREAK)}"
    lines = fill(text, _COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines.replace(_NO_BREAK, " ")


class _Unwritten(Observer):
    """Says that nothing is written, where the policy has a spec already."""

    def __init__(self, server: Server, file: Path) -> None:
        self._server = server
        self._file = file

    def on_stage(self, stage: str) -> None:
        if not stage and not self._server.learns_spec:
            told = "--write-spec: the policy declares its spec itself, so %s is not written"
            log.warning(told, self._file, event=Event("flag_unused"))
