"""What a reviewer looks for first: nothing of ours can run what it is sent. Read from the syntax, not the text."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import policyserve
from tests.policies.frameworks import import_or_skip

SOURCE = Path(policyserve.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# Modules that run or unpack what they read, or hand it to something that does.
FORBIDDEN_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "multiprocessing",
    "concurrent.futures.process", "tarfile", "zipfile", "xmlrpc", "telnetlib", "code", "msgpack_numpy",
}  # fmt: skip
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
LOADS_EVERY_MODULE = """
import importlib, pkgutil, sys, policyserve
for found in pkgutil.walk_packages(policyserve.__path__, "policyserve."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "policyserve"}
print(*ours)
print(*(module.__file__ for module in ours.values()))
"""


def dangers(tree: ast.AST) -> Iterator[str]:
    """Each dangerous thing in a module, with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            yield from (f"{line}: import {one.name}" for one in node.names if is_forbidden(one.name))
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or "", *(f"{node.module}.{one.name}" for one in node.names)]
            yield from (f"{line}: from {node.module} import" for name in names if is_forbidden(name))
        elif isinstance(node, ast.Call):
            problem = wrong_call(node)
            if problem:
                yield f"{line}: {problem}"


def is_forbidden(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in FORBIDDEN_MODULES for length in range(1, len(parts) + 1))


def wrong_call(call: ast.Call) -> str:
    """What is wrong with a call; empty if nothing is."""
    called = ast.unparse(call.func)
    keywords = {one.arg: ast.unparse(one.value) for one in call.keywords}
    positional = [ast.unparse(one) for one in call.args]
    if called in FORBIDDEN_CALLS:
        return f"{called}()"
    if called == "torch.load" and keywords.get("weights_only") != "True":
        return "torch.load() without weights_only=True"
    if called in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
        loaders = [*positional[1:], keywords.get("Loader", "")]
        return "" if any(one.endswith("SafeLoader") for one in loaders) else f"{called}() without a safe loader"
    if called.endswith(".load") and called.split(".")[0] in ("np", "numpy", "jnp") and "allow_pickle" in keywords:
        return "" if keywords["allow_pickle"] == "False" else "np.load() that may unpickle"
    if called.endswith((".extractall", ".unpack_archive")):
        return f"{called}()"
    if keywords.get("shell") == "True" or called == "os.system":
        return f"{called}() through a shell"
    return ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_can_run_nothing_that_it_reads(path: Path) -> None:
    assert list(dangers(ast.parse(path.read_text()))) == []


def test_every_module_that_can_be_imported_was_looked_at() -> None:
    """The whole import graph, in a fresh interpreter: server, clients, engine, policies and commands."""
    import_or_skip("torch")  # half of Wall-X's modules import it
    done = subprocess.run([sys.executable, "-c", LOADS_EVERY_MODULE], capture_output=True, text=True, check=True)
    names, files = done.stdout.splitlines()
    for room in ("cli.serve", "server.server", "client.sync", "client.aio", "engine.runner", "policies.wall_x.loading"):
        assert f"policyserve.{room}" in names.split()
    assert {Path(file) for file in files.split()} <= set(MODULES)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import multiprocessing.shared_memory",
        "from concurrent.futures import process",
        "def f():\n    from pickle import loads",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "import tarfile",
        "shutil.unpack_archive(path)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_look_finds_what_it_looks_for(text: str) -> None:
    assert list(dangers(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "'pickle'",
        "# eval(x)",
        "torch.load(path, weights_only=True)",
        "yaml.load(text, Loader=yaml.CSafeLoader)",
        "np.load(path)",
        "re.compile(x)",
        "model.eval()",
        "jitted.lower(x).compile()",
    ],
)
def test_the_look_takes_words_for_words(text: str) -> None:
    assert not list(dangers(ast.parse(text)))
