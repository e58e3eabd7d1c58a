"""The line that shows what loading is at, and what is written meanwhile."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest

from policyserve.cli.foreground.progress import ProgressLine, stage_line
from policyserve.core.output import LossyStream
from tests.cli.watching import rendered


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Both standard streams are one terminal of 80 columns from now on. No fixture: pytest sets them before a test."""
    made = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, LossyStream(made))
    return made


def shown(terminal: Terminal) -> list[str]:
    return rendered(terminal.getvalue())


def test_a_stage_that_knows_its_share_has_a_bar() -> None:
    assert stage_line("weights: 50 % of 8.4 GB") == "  [###############...............] weights: 50 % of 8.4 GB"


def test_a_stage_that_does_not_is_shown_alone() -> None:
    assert stage_line("warming up, batch 4") == "  warming up, batch 4"


def test_a_stage_drives_no_terminal() -> None:
    assert stage_line("\x1b[2J\nreading") == "  \\x1b[2J\\nreading"


def test_a_newer_stage_takes_the_place_of_the_older(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    line = ProgressLine()
    line.show("loading the checkpoint")
    line.show("warming up")
    assert shown(terminal) == ["warming up"]
    line.show("")
    assert shown(terminal) == [""]


@pytest.mark.parametrize("beside_pipe", [True, False])
def test_beside_a_pipe_the_line_is_shown_where_that_is_wanted(
    beside_pipe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_terminal(monkeypatch)
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    ProgressLine(beside_pipe).show("1 of 2")
    assert shown(terminal) == (["1 of 2"] if beside_pipe else [""])
    assert pipe.getvalue() == ""


def test_a_line_that_is_too_long_is_cut_so_that_it_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    ProgressLine().show("x" * 200)
    assert shown(terminal) == ["x" * 76 + "…"]


def test_what_is_printed_meanwhile_stands_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    line = ProgressLine()
    with line.shared():
        line.show("importing robot")
        print("loading weights")
        print("a warning", file=sys.stderr)
        assert shown(terminal) == ["loading weights", "a warning", "importing robot"]
    assert shown(terminal) == ["loading weights", "a warning", ""]


def test_a_print_that_has_not_ended_its_line_is_not_run_into(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    line = ProgressLine()
    with line.shared():
        line.show("importing robot")
        print("50 %", end="")
        line.show("warming up")
        assert shown(terminal) == ["50 %"]
        print(" … done")
        assert shown(terminal) == ["50 % … done", "warming up"]


def test_a_line_that_a_print_has_begun_can_be_ended_and_one_that_ended_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    line = ProgressLine()
    with line.shared():
        print("50 %", end="")
        line.end_line()
        line.end_line()
        print("ready")
    assert shown(terminal) == ["50 %", "ready", ""]


def test_another_threads_prints_stand_above_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    line = ProgressLine()
    with line.shared():
        threads = [threading.Thread(target=lambda: [sys.stdout.write("abc\n") for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(100):
            line.show(f"stage {number}")
        for thread in threads:
            thread.join()
        assert shown(terminal) == [*["abc"] * 400, "stage 99"]


def test_what_the_terminal_echoes_is_taken_away_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    line = ProgressLine()
    with line.shared():
        line.show("importing robot")
        terminal.write("^C")
        line.start_line()
        print("stopping")
        assert shown(terminal) == ["stopping", "importing robot"]
        print("50 %", end="")
        terminal.write("^C")
        line.start_line()
        print("stopping")
    assert shown(terminal) == ["stopping", "50 %^C", "stopping", ""]


def test_a_thread_that_never_comes_back_from_a_write_holds_no_other_up(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    is_in, leave = threading.Event(), threading.Event()

    def put(text: str) -> None:
        is_in.set()
        leave.wait(30)

    line = ProgressLine()
    stuck = threading.Thread(target=line.write, args=(put, "stuck\n"))
    stuck.start()
    assert is_in.wait(30)
    with line.shared():
        print("the others go on")
    assert shown(terminal) == ["the others go on", ""]
    leave.set()
    stuck.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # that is what is tested
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning")  # of JAX, where another test has loaded it
def test_a_forked_process_prints_though_a_thread_was_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    monkeypatch.setattr("policyserve.cli.foreground.progress._PATIENCE_S", 1e6)
    line = ProgressLine()
    is_in, leave = threading.Event(), threading.Event()
    stuck = threading.Thread(target=line.write, args=(lambda text: is_in.set() or leave.wait(30), "stuck\n"))
    stuck.start()
    assert is_in.wait(30)
    process = os.fork()
    if process == 0:
        try:
            line.write(len, "from the child\n")
        finally:
            os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
    leave.set()
    stuck.join()


def test_the_streams_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    before = sys.stdout, sys.stderr

    def fail() -> None:
        with ProgressLine().shared():
            assert sys.stdout is not before[0]
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert (sys.stdout, sys.stderr) == before


def test_a_pipe_and_a_dumb_terminal_get_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    pipe = io.StringIO()
    for stream, term in ((pipe, "xterm"), (terminal, "dumb")):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setattr(sys, "stdout", LossyStream(stream))
        monkeypatch.setattr(sys, "stderr", LossyStream(stream))
        line = ProgressLine()
        with line.shared():
            line.show("importing robot")
            print("loading")
            line.start_line()
        assert stream.getvalue() == "loading\n"
