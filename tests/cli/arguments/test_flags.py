"""The flags that a command has, out of its dataclasses, and the values that are read for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import pytest
from tyro.conf import Positional, arg

from policyserve.cli.arguments.flags import NEEDED, Flag, build, flags_of
from policyserve.cli.arguments.values import read
from policyserve.core.errors import ConfigError

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class Gripper:
    force: float = 2.5
    """How hard it holds,
    in newtons."""
    fingers: tuple[int, ...] = (2, 3)
    closed: bool = True


@dataclass(frozen=True)
class Arm:
    usual: ClassVar[tuple[str, ...]] = ("name", "gripper.force")
    group: ClassVar[str] = "arms"
    name: str = "left"
    config_path: str | None = None
    joints: int | None = None
    log: Path = Path("log.txt")
    gripper: Gripper = field(default_factory=Gripper)

    def __post_init__(self) -> None:
        if self.name == "":
            raise ConfigError("name: expected a name, got nothing")
        if self.joints == 0:
            raise ValueError("an arm has joints")


@dataclass(frozen=True)
class Command(Generic[PolicyFlagsT]):
    target: Annotated[Positional[str], arg(metavar="TARGET")]
    url: str
    policy: Annotated[PolicyFlagsT, arg(name="")]
    other: Arm = field(default_factory=Arm)
    mode: Literal["slow", "fast"] | None = None
    size: Annotated[int, arg(metavar="PIXELS", help="How large.")] = 3
    debug: bool = False
    made: int = field(default=0, init=False)


DEFAULT: Any = replace(Arm(), name="right")


def flags() -> dict[str, Flag]:
    kind: Any = Command
    return {flag.name: flag for flag in flags_of(kind[Arm], Command("t", "u", DEFAULT))}


def test_every_field_is_a_flag_under_its_own_name_and_those_around_it() -> None:
    assert list(flags()) == [
        "TARGET", "--url", "--name", "--config-path", "--joints", "--log", "--gripper.force", "--gripper.fingers",
        "--gripper.closed", "--other.name", "--other.config-path", "--other.joints", "--other.log",
        "--other.gripper.force", "--other.gripper.fingers", "--other.gripper.closed", "--mode", "--size", "--debug",
    ]  # fmt: skip


def test_a_flag_that_is_needed_has_no_default_and_the_others_have_what_they_were_given() -> None:
    bare = {flag.name: flag.default for flag in flags_of(Gripper)}
    assert bare == {"--force": 2.5, "--fingers": (2, 3), "--closed": True}
    needed = {flag.name: flag.default is NEEDED for flag in flags_of(Command[Arm])}
    assert (needed["TARGET"], needed["--url"], needed["--size"]) == (True, True, False)
    assert flags()["--name"].default == "right"
    assert flags()["--other.name"].default == "left"


@pytest.mark.parametrize(
    ("name", "value_name", "expected"),
    [
        ("--url", "TEXT", "a text"),
        ("--config-path", "PATH", "a path"),
        ("--log", "PATH", "a path"),
        ("--joints", "NUMBER", "a whole number"),
        ("--gripper.force", "NUMBER", "a number"),
        ("--gripper.fingers", "NUMBER …", "whole numbers"),
        ("--mode", "slow|fast", "slow or fast"),
        ("--size", "PIXELS", "a whole number"),
        ("--debug", "", "True or False"),
    ],
)
def test_a_value_has_a_name_for_help_and_words_for_errors(name: str, value_name: str, expected: str) -> None:
    flag = flags()[name]
    assert (flag.value_name, flag.expected) == (value_name, expected)


def test_help_is_the_docstring_behind_the_field_or_what_is_annotated() -> None:
    assert flags()["--gripper.force"].help == "How hard it holds, in newtons."
    assert flags()["--size"].help == "How large."
    assert flags()["--name"].help == ""


def test_a_dataclass_says_which_of_its_flags_are_usual_and_what_its_group_is_called() -> None:
    found = flags()
    assert {name for name, flag in found.items() if flag.is_usual} == {
        "TARGET", "--url", "--name", "--gripper.force", "--other.name", "--other.gripper.force", "--mode", "--size",
        "--debug",
    }  # fmt: skip
    assert {flag.group for flag in found.values()} == {"common", "arms", "gripper"}
    assert found["--gripper.force"].group == "gripper"


def test_a_switch_can_be_turned_off_by_its_other_name() -> None:
    assert flags()["--debug"].names == ("--debug", "--no-debug")
    assert flags()["--gripper.closed"].names == ("--gripper.closed", "--gripper.no-closed")
    assert flags()["TARGET"].names == ()


def read_command(*argv: str) -> Any:
    kind: Any = Command
    start = Command("t", "u", DEFAULT)
    known = flags_of(kind[Arm], start)
    values = read(argv, known)
    return None if values is None else build(kind[Arm], start, values, known)


def test_words_become_the_dataclass_that_they_fill() -> None:
    made = read_command("a", "--url=b", "--other.gripper.fingers", "4", "5", "--no-debug", "--gripper.no-closed")
    assert made == Command(
        "a", "b", replace(DEFAULT, gripper=Gripper(closed=False)), other=Arm(gripper=Gripper(fingers=(4, 5)))
    )
    assert read_command("a", "--mode", "fast", "--joints", "None", "--config_path", "x").policy.config_path == "x"


def test_a_path_may_begin_with_the_home_directory_behind_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    made = read_command("a", "--config-path=~/run", "--log=~/log", "--name=~")
    assert (made.policy.config_path, made.policy.log) == ("/home/robot/run", Path("/home/robot/log"))
    assert made.policy.name == "~"


@pytest.mark.parametrize("argv", [("a", "--joints", "x"), ("a", "--mode", "slo"), ("a", "--what", "1"), ("a", "b")])
def test_words_that_cannot_be_read_are_no_values_and_nothing_is_printed(
    argv: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert read_command(*argv) is None
    assert capfd.readouterr() == ("", "")


def test_a_check_of_a_dataclass_names_the_flag_of_its_field() -> None:
    with pytest.raises(ConfigError, match=r"^--other\.name: expected a name, got nothing$"):
        read_command("a", "--other.name", "")
    with pytest.raises(ConfigError, match=r"^--name: expected a name, got nothing$"):
        read_command("a", "--name", "")
    with pytest.raises(ConfigError, match=r"^an arm has joints$"):
        read_command("a", "--joints", "0")


@dataclass(frozen=True)
class Flow:
    seed: int = 5
    latency: float = 0.5


@dataclass(frozen=True)
class Play(Generic[PolicyFlagsT]):
    policy: Annotated[PolicyFlagsT, arg(name="")]
    seed: int = 0


def test_a_policys_flag_that_is_called_as_the_commands_own_is_named_by_that_word() -> None:
    kind: Any = Play[Flow]
    default = Play(Flow())
    listed = flags_of(kind, default)
    assert [flag.name for flag in listed] == ["--policy-seed", "--latency", "--seed"]
    values = read(["--seed", "1", "--policy-seed", "2", "--latency", "3"], listed)
    assert values is not None
    assert build(kind, default, values, listed) == Play(Flow(2, 3.0), 1)
