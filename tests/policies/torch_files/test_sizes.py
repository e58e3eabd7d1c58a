"""What --obs says, and what is said where it says nothing or something else."""

from __future__ import annotations

import re

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.torch_files.sizes import Input, read_sizes, sized


def test_sizes_stand_alone_or_by_their_names() -> None:
    assert read_sizes(None) == ()
    assert read_sizes("45") == (Input("", (45,)),)
    assert read_sizes("image=3x36x48, state=5") == (Input("image", (3, 36, 48)), Input("state", (5,)))
    assert read_sizes("ids=int64:8") == (Input("ids", (8,), "int64"),)


@pytest.mark.parametrize("text", ["", "x", "0", "3x0", "3x", "-1", "=3", "a=b", "a=string:3", "999999999x9", "1,"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^obs: expected sizes as 45 or image=3x36x48,state=5"):
        read_sizes(text)


@pytest.mark.parametrize("text", ["a=1,a=2", "1,2", "a=1,2"])
def test_several_inputs_have_a_name_each(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^obs: expected a name for each of several inputs, and none twice"):
        read_sizes(text)


def test_inputs_come_in_the_programs_order() -> None:
    assert sized(["x"], read_sizes("45"), None) == (Input("x", (45,)),)
    found = sized(["image", "state"], read_sizes("state=5,image=3x4x4"), None)
    assert [one.name for one in found] == ["image", "state"]


@pytest.mark.parametrize(
    ("takes", "given", "width", "said"),
    [
        (["x"], None, 45, "forward(x): TorchScript stores no sizes; add --obs 45, which its first layer seems to take"),
        (["x"], None, None, "forward(x): TorchScript stores no sizes; add --obs SIZE, as --obs 45"),
        (["a", "b"], None, 3, "forward(a, b): TorchScript stores no sizes; add --obs a=SIZE,b=SIZE, as image="),
        (["a", "b"], "3", 3, "forward(a, b): --obs: expected a size for each of a, b, got a size without a name"),
        (["x"], "y=3", 3, "forward(x): --obs: expected a size for each of x, got y"),
    ],
)
def test_other_inputs_than_the_programs_are_refused(
    takes: list[str], given: str | None, width: int | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        sized(takes, read_sizes(given), width)
