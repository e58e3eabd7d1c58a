"""A recording in Rerun: what its own tools find in the file that is saved, and that they open ours as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve import ArraySpec, PolicySpec
from policyserve.core.errors import MissingDependency
from policyserve.dialects import by_name
from policyserve.recordings.reading import open_recording
from policyserve.recordings.viewing import show
from tests.policies.frameworks import import_or_skip

import_or_skip("mcap.writer")

from policyserve.recordings.file import RecordingFile  # noqa: E402
from policyserve.recordings.layout import Opened, PolicyFacts  # noqa: E402
from tests.recordings.written import BEGIN, reply, written  # noqa: E402


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


def test_there_is_a_tab_for_each_session_and_a_prompt_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import_or_skip("rerun")
    file = RecordingFile(tmp_path / "one.mcap")
    spec = PolicySpec("arm", {"state": ArraySpec((2,), doc="elbow rad, tool/grip")}, ArraySpec((3,)))
    file.tell_policy(PolicyFacts.of(spec))
    for session in (1, 2):
        file.open_session(Opened(session, "local", "openpi", BEGIN / 1e9))
        for number in range(1, 6):
            sent = {"state": np.ones(2, np.float32), "prompt": "pick" if number < 4 else "place"}
            message = by_name("openpi").write_request(sent)
            assert isinstance(message, bytes)
            file.request(session, number, message, BEGIN + number)
            file.reply(session, number, reply(1), BEGIN + number)
    file.close()
    saved = tmp_path / "one.rrd"
    assert show(open_recording(tmp_path / "one.mcap"), saved) == 10
    assert "WARN" not in capfd.readouterr().err, "a name with a space or a slash is no path of Rerun's"
    told = rerun("rrd", "stats", str(saved))
    assert "/session_1/state/elbow\\ rad: " in told
    assert "/session_2/state/tool\\/grip: " in told
    printed = rerun("rrd", "print", "-vvv", str(saved))
    assert printed.count("[pick]") == printed.count("[place]") == 2
    for session in (1, 2):
        assert f"[session {session}]" in printed


def test_rerun_opens_the_file_itself(tmp_path: Path) -> None:
    import_or_skip("rerun")
    told = rerun("mcap", "check", str(written(tmp_path / "one.mcap")))
    rows = [line.split() for line in told.splitlines() if "/s1/" in line or "/events" in line]
    assert {row[0] for row in rows} == {"ok"}
    assert {row[3] for row in rows} == {"/events", "/s1/request", "/s1/reply"}


def test_a_command_line_reader_of_mcap_files_finds_nothing_wrong(tmp_path: Path) -> None:
    import_or_skip("pymcap_cli")
    path = written(tmp_path / "one.mcap")

    def told(*words: str) -> str:
        program = "from pymcap_cli.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "passed MCAP doctor checks" in " ".join(told("doctor", str(path)).split())
    lines = [json.loads(line) for line in told("cat", str(path)).splitlines()]
    events = [line["message"]["event"] for line in lines if line["topic"] == "/events"]
    assert events == ["opened", "dialect"] * 2 + ["closed"] * 2


def test_without_rerun_it_says_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependency, match=r"rerun is not installed; run: pip install 'policyserve\[rerun\]'"):
        show(open_recording(written(tmp_path / "one.mcap")), tmp_path / "one.rrd")
