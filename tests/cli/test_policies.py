"""How a command reads the flags of any adapter, and which exit code each thing that is wrong has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

import pytest
from tyro.conf import arg

from policyserve.cli.policies import find_adapter, find_source, read_flags
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.recipe import Recipe
from policyserve.policies.registry import Source

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class ArmFlags:
    arms: int = 1
    """How many arms."""
    joints: int = 7
    """Numbers in a state."""

    def __post_init__(self) -> None:
        if self.arms < 1:
            raise ConfigError(f"arms: expected 1 or more, got {self.arms}")


@dataclass
class ArmAdapter:
    """Seven joints for each arm, unless the user says otherwise; it keeps what it was asked."""

    target: str = "arm"
    asked: list[ArmFlags | None] = field(default_factory=list)
    error: Exception | None = None
    help = "arms"
    rest = ""
    flags = ArmFlags

    def defaults(self, given: ArmFlags | None) -> ArmFlags:
        self.asked.append(given)
        arms = 1 if given is None else given.arms
        if arms > 8:
            raise ConfigError(f"arms.json: expected at most 8 arms, got {arms}")
        return ArmFlags(joints=7 * arms)

    def source(self, flags: ArmFlags) -> Source:
        if self.error is not None:
            raise self.error
        return Source("arms", "here", Recipe("nowhere:load"))


@dataclass(frozen=True)
class RunFlags(Generic[PolicyFlagsT]):
    """Run it."""

    policy: Annotated[PolicyFlagsT, arg(name="")]
    fast: bool = False


def read(*argv: str, adapter: ArmAdapter | None = None) -> RunFlags[Any]:
    return read_flags(adapter or ArmAdapter(), RunFlags, "run arm", argv)


def refusal(capsys: pytest.CaptureFixture[str], ended: pytest.ExceptionInfo[SystemExit]) -> tuple[object, str]:
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return ended.value.code, said


def test_the_policys_flags_and_the_commands_are_read_together() -> None:
    assert read() == RunFlags(ArmFlags(1, 7))
    assert read("--joints", "6", "--fast") == RunFlags(ArmFlags(1, 6), fast=True)


def test_defaults_may_hang_on_what_was_given() -> None:
    assert read("--arms", "2").policy == ArmFlags(2, 14)
    assert read("--arms", "2", "--joints", "12").policy == ArmFlags(2, 12)


def test_the_line_is_read_twice_only_where_its_defaults_change() -> None:
    adapter = ArmAdapter()
    read("--fast", adapter=adapter)
    assert adapter.asked == [None, ArmFlags(1, 7)]


@pytest.mark.parametrize("argv", [("--arms", "3", "--help"), ("-h", "--arms=3")])
def test_help_has_the_defaults_of_what_was_given(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*argv)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "(default: 21)" in told
    assert "Run it.\n\narms." in told


@pytest.mark.parametrize("words", [("--arms", "many"), ("--arms", "9")])
def test_help_is_given_whatever_else_is_wrong(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*words, "--help")
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert "(default: 7)" in out
    assert err == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--arms", "0"), "arms: expected 1 or more, got 0"),
        (("--amrs", "2"), "did you mean --arms?"),
    ],
)
def test_wrong_flags_end_with_2(argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*argv)
    code, line = refusal(capsys, ended)
    assert code == 2
    assert said in line


def test_a_file_from_which_the_defaults_cannot_be_read_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--arms", "9")
    assert refusal(capsys, ended) == (2, "error: arms.json: expected at most 8 arms, got 9\n")


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("--a and --b: expected one"), 2), (MissingDependency("torch", "wall-x"), 1)]
)
def test_flags_that_do_not_go_together_end_with_2_and_a_missing_package_with_1(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        find_source(ArmAdapter(error=error), ArmFlags())
    assert refusal(capsys, ended) == (code, f"error: {error}\n")


def test_a_name_that_nobody_has_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        find_adapter("cartpole_pop")
    code, said = refusal(capsys, ended)
    assert code == 2
    assert said == "error: there is no policy 'cartpole_pop'; did you mean cartpole_ppo?\n"
