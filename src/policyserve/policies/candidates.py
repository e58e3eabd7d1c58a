"""What a Python file holds that may be a policy, read from its text: nothing of it runs."""

from __future__ import annotations

import ast
from pathlib import Path

_SHOWN = 5


def how_to_name(place: str, file: Path | None) -> str:
    """How to write the policy that is meant by a module or file alone: `write robot:NAME; it has policy, MyPolicy`.

    file: where its text is; None if that is not known.
    """
    told = f"write {place}:NAME"
    if file is None:
        return f"{told}, the policy's name in it"
    if not file.is_file():
        return f"{told}, the policy's name in it; there is no file {file} yet"
    try:
        found = candidates(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:  # ValueError: no UTF-8, or a zero byte
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return f"{told}, the policy's name in it; {file.name} cannot be read as Python{line}"
    if not found:
        return f"{told}; it has no function, class or object that may be a policy"
    others = ", …" if len(found) > _SHOWN else ""
    return f"{told}; it has {', '.join(found[:_SHOWN])}{others}"


def source_of(name: str) -> Path | None:
    """The file of a module that is in the working directory; None if there is none."""
    if not name or not all(part.isidentifier() for part in name.split(".")):
        return None
    path = Path(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def candidates(text: str) -> list[str]:
    """The names in a module's text that may be policies; raises SyntaxError.

    First what is called `policy`, then classes with `infer`. Else a class that may inherit it, a function that needs
    one argument or none, and what a call or a lambda made.
    """
    sure: list[str] = []
    possible: list[str] = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            if _has_infer(node):
                sure.append(node.name)
            elif node.bases:
                possible.append(node.name)
        elif isinstance(node, ast.FunctionDef) and _needed(node.args) <= 1:
            possible.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and _may_make_a_policy(node.value):
            possible += _names(node)
    found = [name for name in dict.fromkeys([*sure, *possible]) if not name.startswith(("_", "test_"))]
    return sorted(found, key=lambda name: name != "policy")


def _may_make_a_policy(value: ast.expr | None) -> bool:
    """Whether it is a lambda, or a call of anything but PolicySpec and its like."""
    called = value.func if isinstance(value, ast.Call) else None
    name = getattr(called, "id", None) or getattr(called, "attr", "")
    return isinstance(value, ast.Lambda) or (called is not None and not name.endswith("Spec"))


def _has_infer(node: ast.ClassDef) -> bool:
    methods = [one.name for one in node.body if isinstance(one, ast.FunctionDef)]
    values = [name for one in node.body if isinstance(one, (ast.Assign, ast.AnnAssign)) for name in _names(one)]
    return "infer" in [*methods, *values]


def _names(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [one.id for one in targets if isinstance(one, ast.Name)]


def _needed(arguments: ast.arguments) -> int:
    """How many arguments a function must be given by their place."""
    return len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
