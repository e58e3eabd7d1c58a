"""Every public function that raises says so, where somebody who calls it reads it.

ruff sees to it that docstrings are there and have their shape. Its rule for exceptions wants sections, which this house
does not write, and asks for the same sentence again at each method of a Protocol.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import policyserve

SOURCE = Path(policyserve.__file__).parent
SCRIPTS = SOURCE.parents[1] / "scripts"
CONSTRUCTORS = ("__init__", "__post_init__")  # their class speaks for them
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function and all that its caller reads about it."""

    name: str
    node: Function
    text: str

    @property
    def raises(self) -> set[str]:
        """The classes that its own body raises."""
        found = (node.exc for node in own_statements(self.node) if isinstance(node, ast.Raise) and node.exc)
        names = {ast.unparse(exc.func if isinstance(exc, ast.Call) else exc).rpartition(".")[2] for exc in found}
        return {name for name in names if name[:1].isupper()}

    @property
    def is_silent(self) -> bool:
        """Whether it raises and neither says so nor names what."""
        named = any(name in self.text for name in self.raises)
        return bool(self.raises) and not named and "raise" not in self.text.lower()


def own_statements(function: Function) -> Iterator[ast.AST]:
    """All nodes of a function but those of functions and classes within it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def public_functions(tree: ast.Module) -> Iterator[Documented]:
    """The public functions of a module, and those of its public classes."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            yield Documented(node.name, node, ast.get_docstring(node) or "")
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from methods(node)


def methods(tree: ast.ClassDef) -> Iterator[Documented]:
    """The public methods of a class, with what its docstring says of all of them."""
    about_all = ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{tree.name}.{node.name}"
            if node.name in CONSTRUCTORS or not node.name.startswith("_"):
                yield Documented(name, node, f"{about_all}\n{ast.get_docstring(node) or ''}")


def protocols(trees: dict[str, ast.Module]) -> dict[str, str]:
    """What the Protocols of the package say of each method, by its name."""
    said: dict[str, str] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
                for method in methods(node):
                    said[method.node.name] = said.get(method.node.name, "") + method.text
    return said


def read_trees() -> dict[str, ast.Module]:
    files = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
    files |= {f"scripts/{path.relative_to(SCRIPTS).as_posix()}": path for path in SCRIPTS.rglob("*.py")}
    return {name: ast.parse(path.read_text()) for name, path in sorted(files.items())}


def silent(trees: dict[str, ast.Module]) -> list[str]:
    """Each public function that raises without a word, as path: name: what."""
    said = protocols(trees)
    return [
        f"{path}: {one.name}: {', '.join(sorted(one.raises))}"
        for path, tree in trees.items()
        for one in public_functions(tree)
        if replace(one, text=one.text + said.get(one.node.name, "")).is_silent
    ]


def test_every_public_function_that_raises_says_so() -> None:
    assert silent(read_trees()) == []


def test_a_function_that_raises_without_a_word_is_found() -> None:
    source = """
class Reader(Protocol):
    def read(self): "Read one; raises KeyError."

class Ours:
    def read(self): raise KeyError
    def write(self):
        "Write one."
        raise ValueError("no")
    def check(self):
        "Raises ValueError."
        raise ValueError
    def _hidden(self): raise ValueError

def outer():
    def inner(): raise ValueError
    raise
"""
    assert silent({"ours.py": ast.parse(source)}) == ["ours.py: Ours.write: ValueError"]
