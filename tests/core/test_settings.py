"""Settings check themselves: types first, then bounds, each by the field's name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Engine(Settings):
    count: int = 1
    wait_s: float | None = None

    def check(self) -> None:
        super().check()
        self.require("count", self.count >= 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Files(Settings):
    path: str | None = None
    names: tuple[str, ...] = ()
    mode: Literal["r", "w"] = "r"
    is_loud: bool = False

    def check(self) -> None:
        super().check()
        self.require("path", self.path != "", "a path")


@dataclass(frozen=True, kw_only=True)
class Both(Engine, Files):
    pass


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("count", "1", "a whole number, got '1'"),
        ("count", 1.0, "a whole number, got 1.0"),
        ("count", True, "a whole number, got True"),
        ("count", None, "a whole number, got None"),
        ("count", 0, "1 or more, got 0"),
        ("wait_s", "5", "a finite number or None, got '5'"),
        ("wait_s", float("nan"), "a finite number or None, got nan"),
        ("wait_s", float("inf"), "a finite number or None, got inf"),
        ("path", 3, "a text or None, got 3"),
        ("path", "", "a path, got nothing"),
        ("names", "abc", "texts, got 'abc'"),
        ("names", (1,), "texts, got (1,)"),
        ("mode", "x", "r or w, got 'x'"),
        ("is_loud", 1, "True or False, got 1"),
    ],
)
def test_a_wrong_value_is_refused_by_name_whichever_group_it_is_of(field: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Both(**{field: value})
    assert str(refused.value) == f"{field}: expected {told}"
    with pytest.raises(ConfigError):
        replace(Both(), **{field: value})


def test_right_values_are_kept_and_a_path_object_becomes_its_text() -> None:
    made = Both(count=2, wait_s=3, path=Path("a/b"), names=("x",), mode="w", is_loud=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert made == Both(count=2, wait_s=3.0, path="a/b", names=("x",), mode="w", is_loud=True)
    assert isinstance(made, Engine)
    assert isinstance(made, Files)
