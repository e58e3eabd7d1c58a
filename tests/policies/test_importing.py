"""Code of the user's, by module or file: what is imported, and the one line that says what is wrong with it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.importing import find_in, import_file, import_from_here, is_file, reason


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal(path: Path | str) -> str:
    with pytest.raises(ConfigError) as refused:
        import_file(path) if isinstance(path, Path) else import_from_here(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("robot", False), ("robots.arm", False), ("robot.py", True), ("./robot", True), ("robots/arm.py", True)],
)
def test_a_path_is_told_from_a_module_by_its_spelling(name: str, expected: bool) -> None:
    assert is_file(name) is expected


def test_a_file_finds_its_neighbours_and_those_of_the_working_directory(here: Path) -> None:
    (here / "common.py").write_text("SIZE = 3\n")
    (here / "arms").mkdir()
    (here / "arms" / "gripper.py").write_text("FORCE = 5\n")
    (here / "arms" / "policy_of_arm.py").write_text("import common, gripper\nHAS = common.SIZE, gripper.FORCE\n")
    assert import_file(here / "arms" / "policy_of_arm.py").HAS == (3, 5)


def test_a_file_of_a_package_may_import_relatively(here: Path) -> None:
    inner = here / "kitchen_robots" / "arms"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").touch()
    (inner.parent / "sizes.py").write_text("SIZE = 3\n")
    (inner / "left.py").write_text("from ..sizes import SIZE\n")
    module = import_file(inner / "left.py")
    assert (module.__name__, module.SIZE) == ("kitchen_robots.arms.left", 3)


def test_a_relative_import_without_a_package_is_told_how_to_name_it(here: Path) -> None:
    (here / "arms").mkdir()
    (here / "arms" / "left.py").write_text("from .sizes import SIZE\n")
    said = refusal(here / "arms" / "left.py")
    assert "attempted relative import with no known parent package" in said
    assert said.endswith(
        "(arms/left.py, line 1); write arms.left:NAME, from the directory above, if it belongs to a package"
    )


def test_a_file_twice_is_one_module(here: Path) -> None:
    (here / "once.py").write_text("THING = object()\n")
    assert import_file(here / "once.py").THING is import_file(here / "once.py").THING


@pytest.mark.parametrize("name", ["json", "sys", "math"])
def test_a_file_with_the_name_of_another_module_is_not_mistaken_for_it(here: Path, name: str) -> None:
    (here / f"{name}.py").write_text("def policy(observation): ...\n")
    assert refusal(here / f"{name}.py").endswith(
        f"{name}.py: Python has another module called {name!r}: rename the file"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere.py", "there is no such file"), ("v1.2.py", "expected a name without a dot before .py")],
)
def test_a_file_that_cannot_be_a_module_is_refused(here: Path, name: str, said: str) -> None:
    (here / "v1.2.py").touch()
    assert said in refusal(here / name)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n\nx / 0\n", "ZeroDivisionError: division by zero (robot.py, line 3)"),
        ("import a_module_that_nobody_has\n", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        ("def policy(:\n", "(robot.py, line 1)"),
        ("import json\njson.loads('{')\n", "(robot.py, line 2)"),  # not the line of the library
        ("import sys\nsys.exit(4)\n", "it ended the program with 4 (robot.py, line 2)"),
        ("raise RuntimeError\n", "RuntimeError (robot.py, line 1)"),
        ("raise ValueError('one\\ntwo')\n", "ValueError: one two (robot.py, line 1)"),
    ],
)
@pytest.mark.parametrize("as_file", [True, False])
def test_what_a_module_raises_is_told_with_its_own_line(here: Path, source: str, said: str, as_file: bool) -> None:
    (here / "robot.py").write_text(source)
    assert said in refusal(here / "robot.py" if as_file else "robot")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "there is no module 'nowhere' here or on the Python path"),
        ("kichen", "there is no module 'kichen' here or on the Python path (did you mean kitchen?)"),
        ("kitchen.oven", "there is no module 'kitchen.oven' here or on the Python path"),
    ],
)
def test_a_module_that_is_not_there_is_named(here: Path, name: str, said: str) -> None:
    (here / "kitchen.py").touch()
    assert refusal(name) == said


def test_a_name_that_is_not_there_is_refused_with_the_nearest(here: Path) -> None:
    (here / "robot.py").write_text("import json\nclass Arm:\n    def left(self): ...\npolicy = Arm()\n")
    module = import_from_here("robot")
    assert find_in(module, "policy", "robot") is module.policy
    assert find_in(module, "Arm.left", "robot") is module.Arm.left
    for name, said in (
        ("polcy", "robot:polcy does not exist: robot has no 'polcy' (did you mean policy?)"),
        ("Arm.lift", "robot:Arm.lift does not exist: robot:Arm has no 'lift' (did you mean left?)"),
        ("jsn", "robot:jsn does not exist: robot has no 'jsn'"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
            find_in(module, name, "robot")


def test_a_name_in_a_value_without_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"robot:n.x does not exist: robot:n has no 'x'"):
        find_in(SimpleNamespace(n=3), "n.x", "robot")  # type: ignore[arg-type]


def test_an_error_that_was_never_raised_has_no_line() -> None:
    assert reason(KeyError("x")) == "KeyError: 'x'"


def test_a_file_that_has_changed_since_is_told_and_answers_as_it_was(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    robot = here / "robot.py"
    robot.write_text("arms = 1\n")
    assert (import_file(robot).arms, import_file(robot).arms, caplog.text) == (1, 1, "")
    robot.write_text("arms = 22\n")
    os.utime(robot, (1, 1))  # a clock may be too coarse to tell two writes apart
    assert (import_file(robot).arms, import_from_here("robot").arms) == (1, 1)
    assert caplog.text.count(f"{robot} has changed since this process imported it") == 2
    assert "--isolate process" in caplog.text
