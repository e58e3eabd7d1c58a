"""What is said of a module or file without a policy's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserve.policies.candidates import candidates, how_to_name, source_of

SOURCE = """
import numpy as np
from dataclasses import dataclass
raise SystemExit("nothing of it may run")
LIMIT = 3
@dataclass
class Settings:
    speed: float = 1.0
class Base:
    pass
class Child(Base):
    pass
def helper(a, b): ...
def act(observation, scale=1.0): ...
def make_policy(): ...
def _private(observation): ...
class Arm:
    def infer(self, observation): ...
class Leg:
    infer = staticmethod(act)
SPEC = policyserve.PolicySpec("arm", {}, None)
IMAGE = ImageSpec(1, 1)
def test_arm(observation): ...
policy = Arm()
always: object = lambda observation: 0
"""


def test_what_may_be_a_policy_is_found_and_what_is_called_so_or_has_infer_comes_first() -> None:
    assert candidates(SOURCE) == ["policy", "Arm", "Leg", "Child", "act", "make_policy", "always"]


def test_a_file_says_how_to_write_what_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "robot.py"
    file.write_text(SOURCE)
    assert how_to_name("robot", file) == "write robot:NAME; it has policy, Arm, Leg, Child, act, …"
    file.write_text("policy = 3\n")
    assert (
        how_to_name("robot.py", file) == "write robot.py:NAME; it has no function, class or object that may be a policy"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"def policy(:\n", "robot.py cannot be read as Python in line 1"),
        (b"\xff\xfe\x00", "robot.py cannot be read as Python"),
        (b"a = 1\x00", "robot.py cannot be read as Python"),
    ],
)
def test_a_file_that_is_no_python_is_said_to_be_none(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "robot.py"
    file.write_bytes(data)
    assert how_to_name("robot.py", file) == f"write robot.py:NAME, the policy's name in it; {said}"


def test_a_module_of_the_working_directory_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot.py").write_text(SOURCE)
    (tmp_path / "arms").mkdir()
    (tmp_path / "arms" / "__init__.py").touch()
    (tmp_path / "arms" / "left.py").touch()
    assert source_of("robot") == Path("robot.py")
    assert source_of("arms") == Path("arms/__init__.py")
    assert source_of("arms.left") == Path("arms/left.py")
    for name in ("nowhere", "", "..", "a b", "arms.right", "robot.py"):
        assert source_of(name) is None
