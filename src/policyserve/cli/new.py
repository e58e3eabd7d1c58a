"""`policyserve new`: write a policy of one's own, which can be served at once, for its author to fill in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from policyserve.cli.new_modules import check_new_module, write_new_module
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain
from policyserve.core.errors import ConfigError
from policyserve.core.printable import one_line

_HELP = """usage: {prog} FILE

Write a small policy of your own to FILE, such as my_policy.py: a class that
takes a picture, a state and a prompt and answers chunks of actions, its spec,
a test, and one place for your model. It can be served at once.
Nothing is overwritten.
"""
_TEMPLATE = '''"""A policy of your own.

policyserve serve MODULE:policy                  serve it; --reload: anew when it changes
policyserve bench MODULE:policy --duration-s 2   ask it, with zeros, and time it
python -m pytest MODULE.py                       test it
"""

import numpy as np

from policyserve import ArraySpec, ImageSpec, PolicySpec, TextSpec, as_policy

HORIZON = 16  # actions in one answer

SPEC = PolicySpec(
    "MODULE",
    observation={
        "observation/image": ImageSpec(224, 224, doc="the camera in front, RGB"),
        "observation/state": ArraySpec((8,), doc="joint angles in rad, gripper 0 to 1"),
        "prompt": TextSpec("what to do"),
    },
    action=ArraySpec((7,), doc="joint velocities in rad/s"),
    horizon=HORIZON,
)


class CLASS:
    """Says what a robot should do next, from what it sees."""

    def __init__(self):
        self.model = None

    def infer(self, observation):
        """Answer one observation.

        observation/image: (224, 224, 3) uint8. observation/state: (8,) float32. prompt: str.
        Returns (HORIZON, 7) float32.
        """
        # your model here: load it in __init__, and call it with these three
        return np.zeros((HORIZON, 7), np.float32)


def policy():
    """Load it: the server calls this once, when it starts."""
    return as_policy(CLASS(), SPEC)


def test_it_answers_what_the_spec_says():
    actions = CLASS().infer(SPEC.example())
    assert SPEC.check_actions(actions).shape == (HORIZON, 7)
'''


def main(argv: Sequence[str], *, prog: str = "policyserve new") -> None:
    """Write the file that the arguments name; exits with 2 for wrong arguments, with 1 if it cannot be written."""
    if any(word in ("-h", "--help") for word in argv):
        print(_HELP.format(prog=prog), end="")
        return
    if len(argv) != 1 or argv[0].startswith("-"):
        got = " ".join(argv) or "nothing"
        complain(f"expected one file to write, such as my_policy.py, got {got} ({prog} --help)", ARGUMENT_ERROR)
    try:
        path = check_new_module(argv[0])
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    try:
        write_new_module(path, template(path))
    except ConfigError as error:
        complain(str(error), FAILURE)
    print(one_line(f'{path} is written: put your model where it says "your model here"'))
    for line in _next_steps(path):
        print(f"  {one_line(line)}")


def template(path: Path) -> str:
    """A policy's module, with the names that it has in this file."""
    parts = [part[0].upper() + part[1:] for part in path.stem.split("_") if part]
    kind = "".join(parts).removesuffix("Policy") + "Policy"
    names = {"MODULE": path.stem, "CLASS": kind}
    return re.sub("MODULE|CLASS", lambda mark: names[mark.group()], _TEMPLATE)


def _next_steps(path: Path) -> list[str]:
    place = path.stem if path.parent == Path() else str(path)
    target = shlex.quote(f"{place}:policy")
    return [
        f"serve it   policyserve serve {target}",
        f"change it  policyserve serve {target} --reload",
        f"ask it     policyserve bench {target} --duration-s 2",
        f"test it    python -m pytest {shlex.quote(str(path))}",
    ]
