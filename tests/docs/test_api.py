"""The page of public names: each with the first sentence of its docstring, in the groups of the package's own list."""

from __future__ import annotations

import inspect
import re

import pytest

import policyserve
from tests.cli.serving import ROOT

PAGE = (ROOT / "docs/api.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))


def test_every_public_name_is_on_the_page_in_the_order_of_the_packages_own_list() -> None:
    assert list(ROWS) == policyserve.__all__


@pytest.mark.parametrize("name", policyserve.__all__)
def test_a_name_is_told_by_the_first_sentence_of_its_docstring(name: str) -> None:
    found = getattr(policyserve, name)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        assert ROWS[name].startswith("the type `")  # an alias has no docstring
        return
    sentence = re.split(r"(?<=\w)\. ", (inspect.getdoc(found) or "").partition("\n")[0])[0].removesuffix(".")
    assert ROWS[name] == sentence
