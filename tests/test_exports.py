"""The public interface: what `policyserve` offers, from where, and what it costs to import it."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

import policyserve
from policyserve.core import errors

HOMES = policyserve._HOME_OF  # pyright: ignore[reportPrivateUsage]


def blocks_under(condition: str) -> list[ast.If]:
    """The package's statements that depend on this condition."""
    tree = ast.parse(Path(policyserve.__file__).read_text())
    return [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == condition]


def imports_for_type_checkers() -> dict[str, set[str]]:
    """Per module, the names that pyright and editors find."""
    (block,) = blocks_under("TYPE_CHECKING")
    return {
        node.module or "": {one.name for one in node.names} for node in block.body if isinstance(node, ast.ImportFrom)
    }


def test_dir_shows_the_public_names_and_no_others() -> None:
    assert set(dir(policyserve)) == {*policyserve.__all__, "__version__"}
    assert not [name for name in policyserve.__all__ if name.startswith("_")]


def test_no_name_is_there_twice() -> None:
    assert len(policyserve.__all__) == len(set(policyserve.__all__))


def test_every_name_has_a_home_and_type_checkers_know_the_same() -> None:
    assert set(HOMES) == set(policyserve.__all__)
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for name, home in HOMES.items():
        homes[home].add(name)
    assert homes == imports_for_type_checkers()


def test_the_names_of_one_module_stand_together() -> None:
    homes = [HOMES[name] for name in policyserve.__all__]
    beginnings = [home for index, home in enumerate(homes) if index == 0 or homes[index - 1] != home]
    assert len(beginnings) == len(set(beginnings))


@pytest.mark.parametrize("name", policyserve.__all__)
def test_a_public_name_is_what_its_home_has(name: str) -> None:
    found = getattr(policyserve, name)
    assert found is getattr(import_module(HOMES[name]), name)
    if inspect.isclass(found) or inspect.isfunction(found):
        assert inspect.getdoc(found), f"{name} has no docstring"


def test_every_error_may_be_caught_by_name() -> None:
    kinds = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.PolicyserveError) and kind.__module__ == errors.__name__
    }
    assert kinds == {name for name, home in HOMES.items() if home == errors.__name__}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'policyserve' has no attribute 'nonsense'"):
        _ = policyserve.nonsense  # pyright: ignore[reportAttributeAccessIssue]


def test_type_checkers_do_not_see_that_names_are_looked_up() -> None:
    """Else they would take every name for one that is there, `policyserve.Cliient` too."""
    (block,) = blocks_under("not TYPE_CHECKING")
    assert [node.name for node in block.body if isinstance(node, ast.FunctionDef)] == ["__getattr__"]


def loaded_by(statement: str) -> set[str]:
    """The modules of ours, and the libraries, that a fresh interpreter has after a statement."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    libraries = {"numpy", "msgpack", "websockets", "asyncio", "tyro", "h11"}
    return {name for name in done.stdout.split() if name.split(".")[0] == "policyserve" or name in libraries}


@pytest.mark.parametrize("statement", ["import policyserve", "import policyserve; dir(policyserve)"])
def test_to_import_the_package_or_to_look_at_it_loads_none_of_it(statement: str) -> None:
    assert loaded_by(statement) == {"policyserve"}


def test_to_catch_an_error_needs_no_server_no_client_and_no_numpy() -> None:
    assert loaded_by("from policyserve import ConnectionLost, Overloaded, BadAction") == {
        "policyserve",
        "policyserve.core",
        "policyserve.core.errors",
        "policyserve.core.printable",
    }
