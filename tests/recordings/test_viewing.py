"""A recording in Rerun: what its own tools find in the file that is saved, and that they open ours as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from policyserve.core.errors import MissingDependency
from policyserve.recordings.reading import open_recording
from policyserve.recordings.viewing import show
from tests.policies.frameworks import import_or_skip

import_or_skip("mcap.writer")

from tests.recordings.written import written  # noqa: E402


def rerun(*words: str) -> str:
    """What Rerun's own command prints."""
    done = subprocess.run([sys.executable, "-m", "rerun_cli", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cameras_states_and_actions_of_each_session_are_there(tmp_path: Path) -> None:
    import_or_skip("rerun")
    saved = tmp_path / "one.rrd"
    assert show(open_recording(written(tmp_path / "one.mcap")), saved) == 10
    told = rerun("rrd", "stats", str(saved))
    for session in (1, 2):
        for place in ("image", "state/0", "state/1", "actions/x", "actions/y", "actions/grip"):
            assert f"/session_{session}/{place}: " in told
    assert "EncodedImage:blob" in told


def test_rerun_opens_the_file_itself(tmp_path: Path) -> None:
    import_or_skip("rerun")
    told = rerun("mcap", "check", str(written(tmp_path / "one.mcap")))
    rows = [line.split() for line in told.splitlines() if "/s1/" in line or "/events" in line]
    assert {row[0] for row in rows} == {"ok"}
    assert {row[3] for row in rows} == {"/events", "/s1/request", "/s1/reply"}


def test_without_rerun_it_says_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependency, match=r"rerun is not installed; run: pip install 'policyserve\[rerun\]'"):
        show(open_recording(written(tmp_path / "one.mcap")), tmp_path / "one.rrd")
