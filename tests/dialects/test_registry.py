"""Dialects by name: ours, and those of installed packages, a broken one among them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from policyserve import dialects
from policyserve.core.errors import ConfigError
from policyserve.dialects.openpi import OpenPI
from policyserve.dialects.registry import Registry

# A whole dialect of another package: numbers as text, both ways. Its clients speak first.
TINY = """
import numpy as np

from policyserve.core.dialect import ErrorReply
from policyserve.core.errors import WireError
from policyserve.core.limits import DEFAULT_LIMITS
from policyserve.core.messages import Reply, Request


class Tiny:
    name = "tiny"
    greets = False

    def greeting(self, metadata):
        return None

    def read_request(self, message, limits=DEFAULT_LIMITS):
        text = message if isinstance(message, str) else bytes(message).decode("utf-8", "replace")
        try:
            return Request({"obs": np.array([float(number) for number in text.split()])})
        except ValueError as error:
            raise WireError("", "numbers", f"{text[:20]!r}") from error

    def write_reply(self, chunk, timing):
        return " ".join(f"{number:g}" for number in np.ravel(chunk.actions))

    def write_error(self, error, detail=""):
        return ErrorReply(f"! {error.code}: {error}")

    def write_request(self, observation):
        return " ".join(f"{number:g}" for number in observation["obs"]).encode()

    def read_greeting(self, message):
        raise WireError("", "no greeting", "one")

    def read_reply(self, message):
        actions = np.array([float(number) for number in message.split()])
        return Reply(actions, {}, {"actions": actions})
"""
POLICY = "def double(observation):\n    return observation['obs'] * 2\n"


def install(place: Path, package: str, entry_points: str, module: str = "") -> None:
    """As pip leaves a package: a module, and beside it what the package says of itself."""
    info = place / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    if module:
        (place / f"{package}.py").write_text(module)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory where packages are found."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in str(sys.modules[module].__file__):
            del sys.modules[module]


def registry() -> Registry:
    return Registry([OpenPI()])


def offers(value: str, name: str = "tiny") -> str:
    return f"[policyserve.dialects]\n{name} = {value}\n"


def test_a_packages_dialect_is_found_by_name(place: Path) -> None:
    install(place, "tiny_package", offers("tiny_package:Tiny"), TINY)
    found = registry()
    assert found.by_name("tiny").name == "tiny"
    assert found.by_name("tiny") is found.by_name("tiny")
    assert found.for_path("/tiny") is found.by_name("tiny")


def test_an_instance_will_do_as_well_as_a_class(place: Path) -> None:
    install(place, "tiny_package", offers("tiny_package:tiny"), TINY + "\ntiny = Tiny()\n")
    assert registry().by_name("tiny").greets is False


def test_a_path_loads_nothing(place: Path) -> None:
    """Else a stranger's request would import modules in the server's event loop."""
    install(place, "tiny_package", offers("tiny_package:Tiny"), TINY)
    found = registry()
    assert found.for_path("/tiny") is None
    assert found.names() == ("openpi",)
    assert found.load_all() == ()
    assert found.names() == ("openpi", "tiny")
    assert found.for_path("/tiny") is not None


def test_a_dialect_may_have_further_paths_of_several_steps(place: Path) -> None:
    install(
        place, "tiny_package", offers("tiny_package:Tiny"), TINY.replace("greets", 'paths = ("v1/tiny",)\n    greets')
    )
    found = registry()
    assert found.for_path("/v1/tiny") is None
    assert found.load_all() == ()
    assert found.for_path("/v1/tiny/") is found.for_path("/tiny") is found.by_name("tiny")
    assert found.for_path("/v2/tiny") is None


def test_an_unknown_name_lists_the_known_ones_and_the_nearest(place: Path) -> None:
    install(place, "tiny_package", offers("tiny_package:Tiny"), TINY)
    with pytest.raises(ConfigError, match=r"one of openpi, tiny, got 'tinny' \(did you mean 'tiny'\?\)"):
        registry().by_name("tinny")


BROKEN = {
    "no module": (offers("no_such_module:Tiny", "broken"), "", "No module named"),
    "an import that raises": (offers("bad_package:Tiny", "broken"), "raise OSError('no driver')", "OSError: no driver"),
    "an import that ends the program": (offers("bad_package:Tiny", "broken"), "raise SystemExit(3)", "SystemExit: 3"),
    "no such name": (offers("bad_package:Tiny", "broken"), "x = 1", "has no attribute 'Tiny'"),
    "no dialect": (offers("bad_package:Tiny", "broken"), "class Tiny:\n    name = 'broken'", "has no greets, greeting"),
    "another name": (offers("bad_package:Tiny", "broken"), TINY, "it calls itself 'tiny'"),
    "one of ours": (offers("bad_package:Tiny", "openpi"), TINY, "the name is that of policyserve itself"),
    "no entry points": ("[policyserve.dialects]\n[[[\nbroken\n", "", "bad_package 1.0"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_package_is_named_and_costs_the_others_nothing(place: Path, what: str) -> None:
    entry_points, module, said = BROKEN[what]
    small = TINY.replace("tiny", "small").replace("Tiny", "Small")
    install(place, "a_package", offers("a_package:Small", "small"), small)
    install(place, "bad_package", entry_points, module)
    found = registry()
    faults = found.load_all()
    if "[[[" not in entry_points or faults:  # newer Pythons read that file, and find nothing in it
        (fault,) = faults
        assert "bad_package 1.0" in fault
        assert said in fault
    assert found.load_all() == faults
    assert set(found.names()) == {"openpi", "small"}
    assert isinstance(found.by_name("openpi"), OpenPI)
    if "broken =" in entry_points:
        with pytest.raises(ConfigError, match=r"bad_package 1\.0"):
            found.by_name("broken")


def test_of_two_packages_with_one_name_the_second_is_told(place: Path) -> None:
    for package in ("tiny_a", "tiny_b"):
        install(place, package, offers(f"{package}:Tiny"), TINY)
    (fault,) = registry().load_all()
    assert "the name is that of tiny_" in fault


def test_our_own_need_no_look_at_installed_packages() -> None:
    """It takes tens of milliseconds in a large environment, which a robot's program would pay when it starts."""
    program = (
        "import importlib.metadata as metadata\n"
        "def distributions(**_):\n    raise AssertionError('looked for packages')\n"
        "metadata.distributions = metadata.entry_points = distributions\n"
        "from policyserve import Client\n"
        "Client('ws://127.0.0.1:1', dialect='openpi')\n"
        "from policyserve import dialects\n"
        "dialects.names(), dialects.by_name('vibe_rl'), dialects.for_path('/any')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_server_speaks_an_installed_packages_dialect_on_its_path(tmp_path: Path) -> None:
    install(tmp_path, "tiny_package", offers("tiny_package:Tiny"), TINY)
    install(tmp_path, "bad_package", offers("bad_package:Tiny", "broken"), "raise OSError('no driver')")
    (tmp_path / "served_here.py").write_text(POLICY)
    command = [sys.executable, "-u", "-m", "policyserve.cli", "serve", "served_here:double", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1"], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = next(line.split()[1] for line in process.stdout if line.split()[:1] == ["url"])
        next(line for line in process.stdout if line.startswith("ready"))
        with connect(f"{url}/tiny") as peer:
            peer.send("1 2.5")
            assert peer.recv(timeout=30) == "2 5"
            peer.send("one")
            assert peer.recv(timeout=30) == "! bad_frame: expected numbers, got 'one'"
            peer.send(b"3")
            assert peer.recv(timeout=30) == "6"
        with connect(f"{url}/openpi") as peer:
            greeting = peer.recv(timeout=30)
            assert isinstance(greeting, bytes)
            assert dialects.by_name("openpi").read_greeting(greeting)["policyserve"]
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert "the dialect 'broken' of bad_package 1.0 cannot be loaded: OSError: no driver" in said
