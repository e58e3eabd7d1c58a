"""`policyserve top`: what a server is doing now, in the terminal: its live page without a browser."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from policyserve.cli.arguments.parsing import parse
from policyserve.cli.keys import key_from_environment, key_from_file
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn_of_keys
from policyserve.cli.watch.asking import Asking, Heard, ask, ask_until_counted
from policyserve.cli.watch.drawing import View, draw
from policyserve.cli.watch.rows import Row
from policyserve.cli.watch.screen import can_redraw, check_installed, marks, print_rows, show, size
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.doctor.server import Examined, as_websocket

PROG = "policyserve top"
_INTERVAL_S = (0.1, 5.0)  # a server that is asked less often begins its lines anew each time


@dataclass(frozen=True)
class TopFlags:
    """Watch a policyserve server in the terminal, until `q` or Ctrl-C: what the live page shows, but for the cameras.

    It ends with 0, or with 1 if the server has nothing to show. A key that the server asks for is taken from the
    environment, POLICYSERVE_API_KEY, or from a file.
    """

    url: Annotated[Positional[str], arg(metavar="URL")] = field(repr=False)
    """ws://host:port, wss://host:port, ws+unix:///path/to/socket, or the page's address: http://host:port."""
    once: bool = False
    """Print one picture and end, as into a pipe or a file."""
    interval_s: float = 1.0
    """How often to ask the server."""
    api_key_file: Path | None = None
    """A file whose first line holds the key, `name: key` or `key`, as the server's own has it."""
    timeout_s: float = 5.0
    """For an answer."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        least, most = _INTERVAL_S
        if not least <= self.interval_s <= most:
            raise ConfigError(f"--interval-s: expected {least:g} … {most:g}, got {self.interval_s!r}")
        if not 0 < self.timeout_s <= 3600:
            raise ConfigError(f"--timeout-s: expected more than 0 and at most 3600, got {self.timeout_s!r}")


def main(argv: Sequence[str]) -> None:
    """Watch the server that the arguments name; exits with 1 where it shows nothing, with 2 for wrong arguments."""
    flags = parse(TopFlags, PROG, argv)
    try:
        key = key_from_environment() if flags.api_key_file is None else key_from_file(flags.api_key_file)
        server = Examined(as_websocket(flags.url), api_key=key, timeout_s=flags.timeout_s)
        check_installed()
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    warn_of_keys(flags.url)
    url = server.address.url.removesuffix("/")
    try:
        if flags.once or not can_redraw():
            _print_once(server, url)
        else:
            _watch(server, url, flags.interval_s)
    except ConfigError as error:
        complain(f"{url}: {error}", FAILURE)
    except KeyboardInterrupt:
        sys.exit(0)


def _print_once(server: Examined, url: str) -> None:
    view = View(ask_until_counted(server), url, marks=marks())
    print_rows(draw(view, size()[0]))


def _watch(server: Examined, url: str, interval_s: float) -> None:
    asking = Asking(server, ask(server), interval_s)
    levels = marks()

    def drawn(heard: Heard, columns: int, rows: int) -> Sequence[Row]:
        trouble = f"{heard.trouble}. Asking again …" if heard.trouble else ""
        return draw(View(heard.document, url, trouble, "q: end", levels), columns, rows)

    asking.start()
    try:
        show(lambda: asking.heard, drawn)
    finally:
        asking.stop()
