"""`policyserve top` as a person uses it: in a terminal of 80 columns and 24 rows, and through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.cli.layout import width_of
from policyserve.core.errors import RemoteError
from policyserve.policies.fakes import demo_image
from tests.cli.serving import POLICYSERVE
from tests.cli.terminals import COLUMNS, WHERE, Where, plain, run_in, unbroken
from tests.cli.watching import Watched, needs_terminals, watching
from tests.doctor.sick import closed_port
from tests.policies.frameworks import import_or_skip
from tests.server.live import Live, serving

import_or_skip("rich")
KEY = "a-key-of-16-letters"
HOSTILE = "[bold red]x[/]\x1b[2J\u202e"
LEFT = "\x1b[?1049l"  # a terminal's: back from the screen of its own
SHORT = ("--interval-s", "0.1")


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(demo_image()) as live:
        yield live


@contextmanager
def top(live: Live, *flags: str, **variables: str) -> Iterator[Watched]:
    command: Sequence[str] = [*POLICYSERVE, "top", live.url("/"), *SHORT, *flags]
    with watching(command, variables=variables) as terminal:
        yield terminal


@pytest.mark.parametrize("flags", [[], ["--once"]])
def test_a_pipe_gets_one_picture(live: Live, flags: list[str]) -> None:
    with Client(live.url("/openpi")) as robot:
        robot.infer({"image": np.zeros((64, 64, 3), np.uint8), "state": np.zeros(3, np.float32)})
        said = run_in("pipe", ["top", live.url("/"), *flags])
    lines = said.out.splitlines()
    assert (said.code, said.err) == (0, "")
    assert lines[0].startswith("demo_image  ready  ws://127.0.0.1:")
    assert any("openpi" in line for line in lines)
    assert any(line.startswith("answers/s") and "–" not in line for line in lines)
    assert "\x1b" not in said.out
    assert max(map(width_of, lines)) <= COLUMNS


def test_once_is_coloured_in_a_terminal_and_nowhere_else(live: Live) -> None:
    coloured = run_in("terminal", ["top", live.url("/"), "--once"])
    assert "\x1b[32mready\x1b[0m" in coloured.out
    assert "\x1b[" not in run_in("terminal", ["top", live.url("/"), "--once"], NO_COLOR="1").out
    assert max(map(width_of, plain(coloured.out).splitlines())) <= COLUMNS


def test_a_dumb_terminal_gets_one_picture(live: Live) -> None:
    said = run_in("terminal", ["top", live.url("/")], TERM="dumb")
    assert (said.code, "\x1b" in said.out) == (0, False)
    assert said.out.startswith("demo_image  ready")


@pytest.mark.parametrize("where", WHERE)
def test_a_strangers_texts_are_shown_as_they_are(where: Where) -> None:
    def refuse(seen: Any) -> Any:
        raise ValueError(seen["prompt"])

    with serving(refuse) as live, Client(live.url("/openpi")) as robot:
        with pytest.raises(RemoteError):
            robot.infer({"prompt": HOSTILE})
        said = run_in(where, ["top", live.url("/"), "--once"])
    assert "raised ValueError: [bold red]x[/]\\x1b[2J\\u202e\n" in plain(said.out)
    assert "\x1b[2J" not in said.out


@pytest.mark.parametrize("where", WHERE)
def test_a_server_that_shows_nothing_ends_it_with_one_line(where: Where) -> None:
    said = run_in(where, ["top", f"127.0.0.1:{closed_port()}"])
    assert (said.code, said.out) == (1, "")
    assert "nothing listens there: start the server" in unbroken(plain(said.err))
    with serving(live=False) as live:
        said = run_in(where, ["top", live.url("/")])
    assert (said.code, said.out) == (1, "")
    assert "started with --no-live" in unbroken(plain(said.err))


@pytest.mark.parametrize("given", ["variable", "file", "url", "none", "wrong"])
def test_a_key_is_taken_from_where_it_is_kept_and_never_shown(given: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"robot: {KEY}\n")
    keys.chmod(0o600)
    environment = {"POLICYSERVE_API_KEY": {"variable": KEY, "wrong": "no-key-of-this-server"}.get(given, "")}
    flags = ["--api-key-file", str(keys)] if given == "file" else []
    with serving(demo_image(), api_key_file=str(keys)) as live:
        host = f"robot:{KEY}@127.0.0.1" if given == "url" else "127.0.0.1"
        said = run_in("pipe", ["top", f"http://{host}:{live.port}", "--once", *flags], **environment)
    assert said.code == (1 if given in ("none", "wrong") else 0), said
    assert KEY not in said.out + said.err
    assert "no-key-of-this-server" not in said.out + said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cartpole_ppo"], "got 'cartpole_ppo'\n"),
        (["ws://robot", "--interval-s", "0"], "--interval-s: expected 0.1 … 5, got 0.0"),
        (["ws://robot", "--interval-s", "60"], "--interval-s: expected 0.1 … 5, got 60.0"),
        (["ws://robot", "--timeout-s", "nan"], "--timeout-s: expected more than 0"),
        (["ws://robot", "--api-key", KEY], "set POLICYSERVE_API_KEY"),
        (["ws://robot", "--onec"], "--once"),
        ([], "URL"),
    ],
)
def test_a_mistake_is_told_in_one_line(words: list[str], told: str) -> None:
    said = run_in("pipe", ["top", *words])
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert KEY not in said.err


def test_without_rich_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    said = run_in("pipe", ["top", "ws://robot"])
    assert (said.code, said.err) == (1, "error: rich is not installed; run: pip install 'policyserve[top]'\n")


@needs_terminals
@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_a_key_ends_it_and_the_screen_is_as_it_was(live: Live, key: bytes) -> None:
    with top(live) as terminal:
        terminal.until("answers/s")
        assert terminal.written.startswith("\x1b[?1049h")
        terminal.press(key)
        assert terminal.end() == 0
    assert "\x1b[?25h" in terminal.written.rpartition("answers/s")[2]
    assert terminal.written.rpartition(LEFT)[2].strip() in ("", "\x1b[?25h")
    assert "Traceback" not in terminal.written


@needs_terminals
def test_a_signal_that_ends_it_leaves_the_screen_as_it_was(live: Live) -> None:
    with top(live) as terminal:
        terminal.until("answers/s")
        terminal.terminate()
        assert terminal.end() == 143
    assert LEFT in terminal.written


@needs_terminals
def test_the_picture_has_the_terminals_size_and_follows_it(live: Live) -> None:
    with Client(live.url("/openpi")), top(live, NO_COLOR="1") as terminal:
        terminal.until("openpi")
        terminal.resize(120, 40)
        terminal.until("       state")  # a row of its own
        terminal.resize(40, 12)
        terminal.until("takes  im")
        terminal.press(b"q")
        assert terminal.end() == 0


@needs_terminals
def test_colours_are_there_unless_they_are_not_wanted(live: Live) -> None:
    for variables, has_them in (({}, True), ({"NO_COLOR": "1"}, False)):
        with top(live, **variables) as terminal:
            terminal.until("answers/s")
            assert ("\x1b[32mready" in terminal.written) == has_them
            terminal.press(b"q")
            assert terminal.end() == 0


@needs_terminals
def test_a_server_that_goes_away_is_waited_for_and_comes_back() -> None:
    with serving() as live:
        port = live.port
        with top(live) as terminal:
            terminal.until("answers/s")
            live.stop()
            terminal.until("nothing listens there: start the")
            terminal.forget()
            live.join()
            with serving(port=port):
                terminal.until("ready")
            terminal.press(b"q")
            assert terminal.end() == 0


def test_the_help_says_how_it_ends() -> None:
    said = run_in("pipe", ["top", "--help"])
    assert "until `q` or Ctrl-C" in " ".join(said.out.split())
