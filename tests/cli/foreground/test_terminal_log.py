"""Lines of the log at a terminal."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from policyserve.cli.foreground.terminal_log import TerminalFormatter
from tests.core.test_printable import is_harmless
from tests.strange import FORGED


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line(name: str, level: int, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A formatted line, without its time."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    made = TerminalFormatter().format(logging.LogRecord(name, level, __file__, 1, text, (), None))
    time_of_day, _, rest = made.partition(" ")
    assert len(time_of_day) == len("15:49:41")
    return rest


def test_ours_are_short_and_their_level_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    told = line("policyserve.server.server", logging.ERROR, "session 1: no", monkeypatch)
    assert told == "\x1b[31mERROR\x1b[0m session 1: no"


def test_a_strangers_have_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    told = line("jax._src", logging.WARNING, "no TPU", monkeypatch)
    assert told == "\x1b[33mWARNING\x1b[0m jax._src: no TPU"


def test_a_long_path_lacks_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    told = line("policyserve", logging.INFO, f"checkpoint /data{'/x' * 50}/state.eqx (PPO)", monkeypatch)
    assert len(told) < 80
    assert told.endswith("/state.eqx (PPO)")


def test_a_long_line_goes_on_below_and_no_word_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["served"] * 30
    told = line("policyserve", logging.INFO, " ".join(words), monkeypatch).removeprefix("\x1b[2mINFO\x1b[0m")
    first, *below = told.split("\n")
    assert max(map(len, [" " * len("15:49:41 INFO") + first, *below])) < 80
    assert all(one.startswith("    ") for one in below)
    assert told.split() == words


def test_no_line_drives_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    told = line("jax\x1b[2J", logging.WARNING, f"x\x1b[2J\n{FORGED}", monkeypatch)
    first, below = told.removeprefix("\x1b[33mWARNING\x1b[0m").split("\n")
    assert is_harmless(first)
    assert is_harmless(below)
    assert below.startswith("    ")
