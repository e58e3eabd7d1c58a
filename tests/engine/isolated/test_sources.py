"""Of what a process has imported, the files of people's own code are told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from policyserve.engine.isolated.sources import own_sources

TELL = "import json; from policyserve.engine.isolated.sources import own_sources; print(json.dumps(own_sources()))"


def test_modules_of_a_folder_are_told_with_those_that_they_import(tmp_path: Path) -> None:
    (tmp_path / "arm.py").write_text("import numpy, json, models.net\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.py").write_text("")
    (tmp_path / "unused.py").write_text("")
    (tmp_path / ".venv" / "lib" / "site-packages").mkdir(parents=True)
    (tmp_path / ".venv" / "lib" / "site-packages" / "installed.py").write_text("")
    code = f"import sys; sys.path.append('.venv/lib/site-packages'); import arm, installed; {TELL}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert json.loads(done.stdout) == [str(tmp_path / "arm.py"), str(tmp_path / "models" / "net.py")]


def test_what_stands_among_the_modules_and_is_none_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("it would be loaded now")

    odd = ModuleType("odd")
    odd.__file__ = None
    for name, value in {"lazy": Lazy("lazy"), "odd": odd, "none": None, "number": 3}.items():
        monkeypatch.setitem(sys.modules, f"_test_{name}", value)
    assert __file__ in own_sources()
