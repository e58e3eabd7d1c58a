"""Files that a command will write are looked at before its work begins."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from policyserve.cli.targets import STDOUT, check_apart, check_target, people_read, write_json
from policyserve.core.errors import ConfigError

ENDINGS = (".mp4", ".gif")


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    old, new = tmp_path / "old.gif", tmp_path / "new.gif"
    old.write_text("a film")
    check_target("video", old, ENDINGS)
    check_target("video", new, ENDINGS)
    check_target("json", new)
    check_target("json", None)
    check_target("json", STDOUT)
    check_target("json", Path("/dev/stdout"))
    assert old.read_text() == "a film"
    assert not new.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "--video: expected a file, got the directory"),
        ("out.avi", "--video: expected a file that ends in .mp4 or .gif, got"),
        ("out.gfi", "(did you mean out.gif?)"),
        ("film", "--video: expected a file that ends in .mp4 or .gif, got"),
        ("-", "--video: expected a file that ends in .mp4 or .gif, got -"),
        ("no/where.gif", "--video: there is no directory"),
        ("notes.txt/out.gif", "--video: there is no directory"),
    ],
)
def test_what_cannot_be_is_told(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").touch()
    with pytest.raises(ConfigError) as refusal:
        check_target("video", Path(name), ENDINGS)
    assert said in str(refusal.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_is_not_ours_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        check_target("json", tmp_path / "figures.json")


def test_a_place_that_takes_no_files_is_told() -> None:
    with pytest.raises(ConfigError, match=r"--json: /proc/figures.json cannot be written: "):
        check_target("json", Path("/proc/figures.json"))


def test_two_options_want_two_files(tmp_path: Path) -> None:
    check_apart(json=tmp_path / "a.png", plot=tmp_path / "b.png", video=None)
    check_apart(json=STDOUT, plot=STDOUT)
    with pytest.raises(ConfigError, match=r"--json and --plot: expected two files, got .*same.png for both"):
        check_apart(json=tmp_path / "same.png", plot=tmp_path / "same.png")


def test_figures_go_to_a_file_or_to_stdout_and_then_people_read_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json("json", tmp_path / "a.json", {"a": 1})
    write_json("json", None, {"b": 1})
    write_json("json", STDOUT, {"c": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert json.loads(capsys.readouterr().out) == {"c": 1}
    assert people_read(STDOUT) is sys.stderr
    assert people_read(None) is people_read(tmp_path) is sys.stdout
    with pytest.raises(ConfigError, match=r"--json: .* cannot be written: Is a directory"):
        write_json("json", tmp_path, {})
