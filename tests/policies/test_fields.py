"""What is said of a field that is missing or is another thing than expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.fields import Fields, read_object

READERS: dict[str, tuple[str, Any, str]] = {
    "count": ("count", True, "a positive integer, got true"),
    "too large a count": ("count", 1 << 40, "at most 2147483648"),
    "number": ("finite", float("nan"), "a finite number"),
    "flag": ("flag", 1, "true or false, got 1"),
    "text": ("text", None, "a text, got null"),
    "counts": ("counts", [1, -1], "a list of non-negative integers"),
    "section": ("section", [], "an object, got []"),
}


@pytest.mark.parametrize("name", list(READERS))
def test_a_wrong_value_is_told_with_file_and_field(name: str) -> None:
    reader, value, told = READERS[name]
    with pytest.raises(ConfigError) as refused:
        getattr(Fields({"size": value}, "config.json"), reader)("size")
    assert str(refused.value).startswith(f"config.json: size: expected {told}")
    with pytest.raises(ConfigError, match=r"config\.json: size is missing"):
        getattr(Fields({}, "config.json"), reader)("size")


def test_a_choice_names_what_could_be() -> None:
    fields = Fields({"kind": "c"}, "config.json")
    with pytest.raises(ConfigError, match='kind: expected a or b, got "c"'):
        fields.choice("kind", ("a", "b"))
    assert Fields({"kind": "a"}, "config.json").choice("kind", ("a", "b")) == "a"


def test_a_section_knows_where_it_is() -> None:
    with pytest.raises(ConfigError, match=r"config\.json: inner: size is missing"):
        Fields({"inner": {}}, "config.json").section("inner").count("size")


@pytest.mark.parametrize("text", ["[1]", "{", "", "3"])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_object(tmp_path / "config.json")
