"""Where the `policyserve` command begins: from here on Ctrl-C ends it with 130 and without a word.

It imports as little as can be, since importing the rest takes part of a second.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130  # what a shell has for a program that SIGINT ended


def main() -> None:
    """Run the command; raises SystemExit(130) if it is interrupted and does not see to that itself."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in a shell's background
    if is_heard:
        signal.signal(signal.SIGINT, _leave)
    from policyserve.cli import main as run_command

    try:
        run_command(on_loaded=_raise_interrupts if is_heard else None)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        if is_heard:
            signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once. A KeyboardInterrupt in the midst of an import may be caught there, or shown with a traceback."""
    os._exit(INTERRUPTED)


def _raise_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
