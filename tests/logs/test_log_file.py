"""The file of the log: what is wrong with it is said before anything starts, and later ends nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policyserve.core.errors import ConfigError
from policyserve.logs.log_file import LogFile

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@contextmanager
def opened(path: Path) -> Iterator[LogFile]:
    file = LogFile(str(path))
    try:
        yield file
    finally:
        file.close()


def put(file: LogFile, text: str) -> None:
    file.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "%s", (text,), None))


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    with opened(path) as file:
        put(file, "ä")
        put(file, "a surrogate \udc80")
    assert path.read_text(encoding="utf-8") == "before\nä\na surrogate \\udc80\n"


def test_it_is_not_for_everybody(tmp_path: Path) -> None:
    with opened(tmp_path / "log"):
        assert os.stat(tmp_path / "log").st_mode & 0o007 == 0


WRONG = {
    "": "log_file: expected a file, got the directory HERE; name a file in it, such as HERE/policyserve.log",
    "file/log": "log_file: HERE/file/log: there is no directory HERE/file; HERE/file is a file",
    "missing/log": "log_file: HERE/missing/log: there is no directory HERE/missing; mkdir -p HERE/missing makes it",
    "pipe": "log_file: HERE/pipe is a pipe that nobody reads: start its reader first, or name a file",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_written_is_one_line_with_path_and_cure(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError) as caught:
        LogFile(str(tmp_path / name))
    assert str(caught.value) == WRONG[name].replace("HERE", str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_of_somebody_elses_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    (tmp_path / "log").chmod(0o400)
    with pytest.raises(ConfigError, match=r"log cannot be written: Permission denied; name a file that you may write"):
        LogFile(str(tmp_path / "log"))


@pytest.mark.parametrize("end", ["moved", "removed"])
def test_after_a_rotation_lines_go_to_a_new_file(end: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as file:
        put(file, "one")
        path.rename(tmp_path / "log.1") if end == "moved" else path.unlink()
        put(file, "two")
        put(file, "three")
    assert path.read_text() == "two\nthree\n"


@needs_dev_full
def test_a_full_disk_is_told_once_and_what_is_lost_when_there_is_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    with opened(path) as file:
        for _ in range(5):
            put(file, "lost")
        told = capsys.readouterr().err
        assert told == (
            f"error: --log-file: {path} cannot be written: No space left on device; lines are lost until it can be\n"
        )
        path.unlink()
        put(file, "kept")
    assert path.read_text() == "5 lines before this one could not be written\nkept\n"


def test_half_a_line_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, path = os.write, tmp_path / "log"
    with opened(path) as file:
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
        put(file, "half a line")
        monkeypatch.undo()
        put(file, "whole")
    assert path.read_text() == "hal\n1 lines before this one could not be written\nwhole\n"


def test_a_folder_that_goes_away_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with opened(folder / "log") as file:
        (folder / "log").unlink()
        folder.rmdir()
        put(file, "lost")
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_after_its_end_nothing_is_raised(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "log"))
    file.close()
    file.close()
    put(file, "late")
