"""How a policy is loaded by name."""

from __future__ import annotations

from pathlib import Path

import pytest

import policyserve
from policyserve.core.errors import ConfigError
from policyserve.core.policy import FunctionPolicy
from policyserve.core.recipe import Recipe
from tests.engine.obedient import Obedient
from tests.engine.running import recipe


def test_the_function_gets_its_arguments_and_the_stages_if_it_asks_for_them(tmp_path: Path) -> None:
    stages: list[str] = []
    policy = recipe("load", marks=tmp_path)(stages.append)
    assert isinstance(policy, Obedient)
    assert stages == ["reading 50 %"]
    policy.close()
    assert (tmp_path / "closed").exists()


def test_what_the_function_returns_may_be_all_that_a_server_takes(tmp_path: Path) -> None:
    assert isinstance(recipe("load_vibe_rl", marks=tmp_path)(print), FunctionPolicy)


@pytest.mark.parametrize("target", ["tests.engine.obedient", "tests.engine.obedient:", "tests.engine.obedient:HERE.x"])
def test_a_target_that_is_no_function_is_named(target: str) -> None:
    with pytest.raises(ConfigError, match=f"expected package.module:function, got {target!r}"):
        Recipe(target)(print)


def test_an_import_error_inside_the_module_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        Recipe("needs_more:make")(print)


def test_it_is_public() -> None:
    assert policyserve.Recipe is Recipe
