"""examples/notebook.ipynb runs from top to bottom in a kernel of its own, and shows what it showed when saved."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cli.serving import ROOT
from tests.policies.frameworks import import_or_skip

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def code_cells(notebook: Path) -> list[Any]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def shown(cell: Any) -> list[tuple[str, str]]:
    """What stands below a cell: the kind of each output, and its text without the numbers; nothing of the log."""
    told = []
    for output in (one for one in cell["outputs"] if one.get("name") != "stderr"):
        text = output.get("text") or output.get("data", {}).get("text/plain") or output.get("ename", "")
        told.append((output["output_type"], re.sub(r"-?\d[\d.]*", "N", "".join(text))))
    return told


def test_the_notebook_was_saved_after_it_ran_from_top_to_bottom() -> None:
    cells = code_cells(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert "error" not in [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert len(NOTEBOOK.read_bytes()) < 60_000, "its pictures are large"


def test_the_notebook_runs_and_shows_the_same(tmp_path: Path) -> None:
    for name in ("nbclient", "ipykernel", "gymnasium", "matplotlib"):
        import_or_skip(name)
    ran = tmp_path / "ran.ipynb"
    program = [sys.executable, "-c", RUN, str(NOTEBOOK), str(ran)]
    subprocess.run(program, cwd=tmp_path, check=True, timeout=110)
    assert [shown(cell) for cell in code_cells(ran)] == [shown(cell) for cell in code_cells(NOTEBOOK)]
