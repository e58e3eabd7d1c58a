"""Where a module can be written, and what is said where it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyserve.cli.new_modules import check_new_module, write_new_module
from policyserve.core.errors import ConfigError

REFUSED = {
    "nothing": ("", "expected a file to write, such as my_policy.py, got nothing"),
    "no ending": ("my_policy", "my_policy: expected a Python file; write my_policy.py"),
    "another ending": ("my-policy.txt", "write my_policy_txt.py"),
    "a hyphen": ("my-policy.py", "'my-policy' is no name that Python can import; write my_policy.py"),
    "a dot": ("my.policy.py", "write my_policy.py"),
    "a digit first": ("3d.py", "write policy_3d.py"),
    "a keyword": ("class.py", "write policy_class.py"),
    "no letter": ("-.py", "write my_policy.py"),
    "Python's own": ("json.py", "Python has a module 'json', which this file would hide; write my_json.py"),
    "an installed package's": ("numpy.py", "which this file would hide; write my_numpy.py"),
    "ours": ("policyserve.py", "which this file would hide"),
    "a folder": (".", "expected a file, got a folder; write my_policy.py"),
    "a folder that is not there": ("robots/", "expected a file, got a folder; write robots/my_policy.py"),
    "a missing folder": ("robots/arm.py", "robots/arm.py: there is no folder robots; mkdir -p robots makes it"),
    "a file as folder": ("taken.txt/arm.py", "there is no folder taken.txt; it is a file"),
    "a file that is there": ("taken.py", "taken.py is there already and stays as it is"),
    "a link to nothing": ("link.py", "link.py is there already and stays as it is"),
    "a hyphen below a folder": ("sub/my-policy.py", "write sub/my_policy.py"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_name_that_cannot_be_is_refused_with_one_that_can(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("taken.py", "taken.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "link.py").symlink_to("nowhere")
    (tmp_path / "sub").mkdir()
    text, said = REFUSED[mistake]
    with pytest.raises(ConfigError) as refused:
        check_new_module(text)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["a" * 300 + ".py", "~nobody_here/arm.py", "a\0b.py", "\udcff.py"])
def test_a_name_that_no_disk_takes_is_told_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        write_new_module(check_new_module(name), "")


def test_a_good_name_passes_with_the_home_folder_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_new_module("~/my_policy.py") == tmp_path / "my_policy.py"


def test_a_module_of_this_folder_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "arm.py").write_text("")
    (tmp_path / "sub").mkdir()
    assert check_new_module("sub/arm.py") == Path("sub/arm.py")


def test_a_file_that_came_meanwhile_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "arm.py"
    write_new_module(file, "first")
    with pytest.raises(ConfigError, match="is there already"):
        write_new_module(file, "second")
    assert file.read_text() == "first"


def test_a_folder_that_takes_no_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
        write_new_module(tmp_path / "gone" / "arm.py", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's full disk")
def test_what_could_not_be_written_whole_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "arm.py"
    opened = Path.open

    def open_full(path: Path, *args: str, **options: str) -> object:
        opened(path, *args, **options).close()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        return open("/dev/full", "w")

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
        write_new_module(file, "text")
    assert not file.exists()
