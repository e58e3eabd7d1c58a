"""`policyserve record`, `serve --record`, `view` and `export` as a person uses them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client
from policyserve.policies.fakes import demo_image
from policyserve.recordings.reading import open_recording
from tests.cli.serving import serving as serving_command
from tests.cli.terminals import WHERE, Where, plain, run_in
from tests.policies.frameworks import import_or_skip
from tests.server.live import serving

import_or_skip("mcap.writer")

COMMAND = (sys.executable, "-m", "policyserve.cli")
OBSERVATION = {"image": np.zeros((64, 64, 3), np.uint8), "state": np.ones(3, np.float32)}


def only_file(directory: Path) -> Path:
    (path,) = directory.glob("*.mcap")
    return path


def test_a_server_says_where_it_records_and_leaves_a_whole_file(tmp_path: Path) -> None:
    command = [
        *COMMAND,
        "serve",
        "demo_image",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--record",
        str(tmp_path / "runs"),
    ]
    with serving_command(command) as served:
        assert any(line.split() == ["records", str(tmp_path / "runs")] for line in served.lines)
        url = next(line.split()[1] for line in served.lines if line.split()[:1] == ["url"])
        with Client(url.replace("localhost", "127.0.0.1")) as client:
            client.infer(OBSERVATION)
        code, _ = served.stop(signal.SIGINT)
    assert code == 0
    recording = open_recording(only_file(tmp_path / "runs"))
    assert not recording.facts.is_cut
    assert [len(list(recording.exchanges(one.number))) for one in recording.sessions] == [1]


@pytest.mark.parametrize("where", WHERE)
def test_a_directory_that_cannot_be_written_is_one_line_before_anything_starts(tmp_path: Path, where: Where) -> None:
    (tmp_path / "file").write_text("")
    said = run_in(where, ["serve", "demo_image", "--port", "0", "--record", str(tmp_path / "file")])
    assert (said.code, said.out) == (2, "")
    assert "error: --record: expected a directory that can be written, got " in " ".join(plain(said.err).split())


def test_the_proxy_says_where_it_is_and_ends_with_0(tmp_path: Path) -> None:
    with serving(demo_image()) as live:
        command = [*COMMAND, "record", f"ws://127.0.0.1:{live.port}", "--out", str(tmp_path), "--port", "0"]
        with serving_command(command) as served:
            url = next(line.split()[1] for line in served.lines if line.split()[:1] == ["url"])
            with Client(url) as client:
                client.infer(OBSERVATION)
            code, log = served.stop(signal.SIGINT)
    assert code == 0, log
    assert "session 1 opened dialect=openpi" in log
    recording = open_recording(only_file(tmp_path))
    assert len(list(recording.exchanges(1))) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["record", "http://robot", "--out", "runs"], "url: expected ws://host:port"),
        (["record", "ws://robot", "--out", "file"], "--out: expected a directory that can be written, got file"),
        (["record", "ws://robot", "--out", "runs", "--port", "70000"], "--port: expected 0 … 65535, got 70000"),
        (["record", "ws://robot", "--out", "runs", "--queue-mib", "0"], "--queue-mib: expected 1 or more"),
        (["record", "ws://robot"], "--out"),
        (["view", "absent.mcap"], "absent.mcap: expected a recording, got no such file"),
        (["view", "file"], "file: expected an MCAP file of policyserve, got an empty file"),
        (["view", "file", "--save", "x.txt"], "--save: expected a file that ends in .rrd"),
        (["export", "."], "expected a recording, got a directory"),
        (["export", "file", "--to", "rlds"], "--to"),
        (["export", "file", "--to", "lerobot", "--fps", "0"], "--fps: expected 1 or more, got 0"),
        (["export", "file", "--fps", "10"], "--fps: expected none without --to lerobot, got 10"),
    ],
)
def test_wrong_words_are_one_line_and_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    said = run_in("pipe", words)
    assert (said.code, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert told in said.err


def test_a_recording_is_exported_and_viewed(tmp_path: Path) -> None:
    from tests.recordings.written import written

    path = written(tmp_path / "one.mcap")
    said = run_in("pipe", ["export", str(path)])
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [str(tmp_path / "one" / f"session_{number}.npz") for number in (1, 2)]
    import_or_skip("rerun")
    said = run_in("pipe", ["view", str(path), "--save", str(tmp_path / "one.rrd")])
    assert (said.code, said.err) == (0, "")
    assert said.out == f"10 requests of 2 sessions in {tmp_path / 'one.rrd'}\n"
    assert (tmp_path / "one.rrd").stat().st_size > 1000


def test_without_lerobot_a_dataset_is_one_line_that_says_what_is_missing(tmp_path: Path) -> None:
    from tests.recordings.written import written

    path = written(tmp_path / "one.mcap")
    words = ["export", str(path), "--to", "lerobot"]
    program = f"import sys; sys.modules['lerobot'] = None; from policyserve.cli import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "--to lerobot: lerobot" in done.stderr
    assert not (tmp_path / "one").exists()


def test_a_dataset_is_not_written_where_something_is(tmp_path: Path) -> None:
    from tests.recordings.written import written

    path = written(tmp_path / "one.mcap")
    said = run_in("pipe", ["export", str(path), "--to", "lerobot", "--out", str(tmp_path)])
    assert (said.code, said.out) == (2, "")
    assert "--out: expected a directory that is not there yet" in said.err


def test_a_recording_without_an_answer_exports_nothing_and_says_so(tmp_path: Path) -> None:
    from tests.recordings.written import written

    path = written(tmp_path / "one.mcap", count=0)
    said = run_in("pipe", ["export", str(path)])
    assert said.code == 1
    assert "expected a request with an answer, got none" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "demo_image", "--record", "runs", "--port", "0"],
        ["record", "ws://127.0.0.1:9", "--out", "runs"],
        ["view", "one.mcap"],
        ["export", "one.mcap", "--to", "npz"],
    ],
)
def test_a_package_that_is_missing_is_no_wrong_argument(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "one.mcap").touch()
    program = f"import sys; sys.modules['mcap'] = None; from policyserve.cli import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not installed; run: pip install 'policyserve[record]'" in done.stderr
