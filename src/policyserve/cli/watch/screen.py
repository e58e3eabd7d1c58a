"""The terminal: a picture that is drawn again whenever something changes, by rich; nothing is left of it at the end."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, TypeVar

from policyserve.cli.colours import has_colours
from policyserve.cli.watch.rows import ASCII, BLOCKS, Row
from policyserve.core.errors import MissingDependency

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_TICK_S = 0.1  # how soon a new size of the window is seen
_USUAL = (80, 24)  # columns and rows of a terminal that does not tell
_LEAVE = (b"q", b"Q", b"\x03", b"\x04")
_ENDING = ("SIGTERM", "SIGHUP")  # signals that end the command, the screen cleaned as by `q`

T = TypeVar("T")


def check_installed() -> None:
    """Raise MissingDependency where rich is not installed."""
    try:
        import_module("rich")
    except ImportError as error:
        raise MissingDependency("rich", "top") from error


def can_redraw() -> bool:
    """Whether standard output is a terminal on which a picture can replace another."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def marks() -> str:
    """The levels of a line that standard output's encoding has."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def size() -> tuple[int, int]:
    """The terminal's columns and rows."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return _USUAL
    return columns or _USUAL[0], rows or _USUAL[1]


def print_rows(rows: Sequence[Row]) -> None:
    """Print a picture, and go on below it."""
    _console(size()[0]).print(_joined(rows), soft_wrap=True)


def show(newest: Callable[[], T], draw: Callable[[T, int, int], Sequence[Row]]) -> None:
    """Draw until `q` or Ctrl-C: anew whenever newest() is another value, or the window has another size.

    draw: makes the picture of a value for a terminal of so many columns and rows.
    """
    from rich.console import ConsoleDimensions

    shown: tuple[T, tuple[int, int]] | None = None
    with _keys() as is_left, _ended_by_signals():
        console = _console(_USUAL[0])
        with console.screen(hide_cursor=True) as screen:
            while not is_left(0.0 if shown is None else _TICK_S):
                now = newest(), size()
                if now != shown:
                    shown, (columns, rows) = now, now[1]
                    console.size = ConsoleDimensions(columns, rows)
                    screen.update(_joined(draw(now[0], columns, rows)))


def _console(columns: int) -> Console:
    from rich.console import Console

    colours = "standard" if has_colours(sys.stdout) else None
    return Console(
        file=sys.stdout, width=columns, color_system=colours, force_terminal=sys.stdout.isatty(), highlight=False
    )


def _text(row: Row) -> Text:
    """The row as it is: brackets in it are no markup."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop", end="")
    for piece in row:
        text.append(piece.text, piece.style or None)
    return text


def _joined(rows: Sequence[Row]) -> Text:
    from rich.text import Text

    return Text("\n", no_wrap=True, overflow="crop", end="").join(map(_text, rows))


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Hear keys as they are pressed: a function that waits so many seconds, and says whether one of them ends it."""
    if sys.stdin is None or not sys.stdin.isatty() or sys.platform == "win32":  # Ctrl-C alone
        yield lambda seconds: bool(time.sleep(seconds))
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def is_left(seconds: float) -> bool:
        ready, _, _ = select.select([keyboard], [], [], seconds)
        pressed = os.read(keyboard, 64) if ready else b"-"
        return not pressed or any(key in pressed for key in _LEAVE)

    try:
        tty.setcbreak(keyboard)
        yield is_left
    finally:
        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(keyboard, termios.TCSAFLUSH, before)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have a signal that ends the command unwind it, so that the terminal is as it was."""

    def leave(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
