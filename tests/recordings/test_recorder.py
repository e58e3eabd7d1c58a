"""A server records what it hears and says, whoever of the two processes dies, and serves on whatever happens to it."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from policyserve import ActionChunk, ArraySpec, Client, ConfigError, ImageSpec, PolicyInput, PolicySpec, RemoteError
from policyserve.core.observer import SessionFacts
from policyserve.recordings import recorder as recorder_module
from policyserve.recordings.plan import Plan
from policyserve.recordings.reading import Recording, open_recording
from policyserve.recordings.recorder import Recorder
from tests.policies.frameworks import import_or_skip
from tests.server.live import DEADLINE_S, Live, serving

import_or_skip("mcap.writer")
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="recordings need POSIX")
SPEC = PolicySpec(
    "sums", {"image": ImageSpec(16, 16), "state": ArraySpec((2,))}, ArraySpec((2,), doc="left, right"), horizon=3
)


class Sums:
    """Answers what it was asked, three times; raises at a negative number."""

    buckets: Sequence[int] = ()
    spec = SPEC

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        states = [one.observation["state"] for one in batch]
        if any((state < 0).any() for state in states):
            raise ValueError("negative")
        return [ActionChunk(np.tile(state, (3, 1))) for state in states]

    def close(self) -> None: ...


def observation(number: int) -> dict[str, np.ndarray]:
    return {"image": np.full((16, 16, 3), number, np.uint8), "state": np.full(2, number, np.float32)}


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.mcap"))


def recording_in(directory: Path) -> Recording:
    (path,) = files_in(directory)
    return open_recording(path)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.01)


def writer_of(live: Live) -> int:
    """The writing process's id, once it says that it records."""
    recorder = live.server.recorder
    assert recorder is not None
    until(lambda: recorder.number != 0)
    return recorder.number


@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl"])
def test_what_a_client_asked_and_got_is_in_the_file(tmp_path: Path, dialect: str) -> None:
    with (
        serving(Sums(), record=str(tmp_path)) as live,
        Client(f"ws://127.0.0.1:{live.port}", dialect=dialect) as client,
    ):
        answers = [client.infer(observation(number)).actions for number in range(1, 6)]
    recording = recording_in(tmp_path)
    assert (recording.facts.policy, recording.facts.is_cut, recording.facts.left_out) == ("sums", False, 0)
    assert recording.facts.spec is not None
    assert recording.facts.spec.describe() == SPEC.describe()
    (session,) = recording.sessions
    assert session.dialect == dialect
    exchanges = list(recording.exchanges(session.number))
    assert len(exchanges) == 5
    for number, (exchange, answer) in enumerate(zip(exchanges, answers, strict=True), 1):
        assert exchange.number == number
        assert exchange.reset == (number == 1)
        assert np.array_equal(exchange.observation["image"], observation(number)["image"])
        assert exchange.actions is not None
        assert np.array_equal(exchange.actions, answer)
        assert exchange.left_at is not None
        assert abs(time.time() - exchange.left_at) < DEADLINE_S
        assert exchange.left_at > exchange.arrived_at


@pytest.mark.parametrize("dialect", ["openpi", "vibe_rl"])
def test_what_was_refused_is_in_the_file_with_its_code(tmp_path: Path, dialect: str) -> None:
    with serving(Sums(), record=str(tmp_path)) as live:
        with Client(f"ws://127.0.0.1:{live.port}/{dialect}") as client, pytest.raises(RemoteError):
            client.infer({"image": np.zeros((16, 16, 3), np.uint8), "state": np.zeros(9)})
        with Client(f"ws://127.0.0.1:{live.port}/{dialect}") as client, pytest.raises(RemoteError):
            client.infer({**observation(1), "state": np.full(2, -1.0)})
    recording = recording_in(tmp_path)
    exchanges = [exchange for one in recording.sessions for exchange in recording.exchanges(one.number)]
    codes = [exchange.error.code for exchange in exchanges if exchange.error is not None]
    assert codes == ["bad_observation", "policy_failed"]


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    with serving(Sums(), record=str(tmp_path / "made" / "here")):
        pass
    (path,) = files_in(tmp_path / "made" / "here")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_two_servers_in_one_directory_have_files_of_their_own(tmp_path: Path) -> None:
    with serving(Sums(), record=str(tmp_path)) as one, serving(Sums(), record=str(tmp_path)) as other:
        for live in (one, other):
            with Client(f"ws://127.0.0.1:{live.port}") as client:
                client.infer(observation(1))
    assert [len(open_recording(path).sessions) for path in files_in(tmp_path)] == [1, 1]


def test_what_was_said_is_in_the_file_within_a_second_and_its_writers_death_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), serving(Sums(), record=str(tmp_path)) as live:
        writer = writer_of(live)
        with Client(f"ws://127.0.0.1:{live.port}") as client:
            client.infer(observation(1))
            until(lambda: _count_in(tmp_path) == 1)
            assert recording_in(tmp_path).facts.is_cut
            os.kill(writer, signal.SIGKILL)
            recorder = live.server.recorder
            assert recorder is not None
            while recorder.is_recording:
                client.infer(observation(2))
            assert client.infer(observation(3)).actions[0, 0] == 3
    errors = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    told = "its process was killed by SIGKILL (by the system, if memory ran out)"
    assert errors == [f"recording ended: {told}; serving goes on"]
    (exchange,) = recording_in(tmp_path).exchanges(1)
    assert exchange.actions is not None


def test_a_full_disk_ends_the_recording_with_one_error_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), serving(Sums(), record=str(tmp_path)) as live:
        resource.prlimit(writer_of(live), resource.RLIMIT_FSIZE, (4000, 4000))  # the file system says no from here on
        recorder = live.server.recorder
        assert recorder is not None
        noise = np.random.default_rng(0)
        with Client(f"ws://127.0.0.1:{live.port}") as client:
            while recorder.is_recording:
                client.infer({**observation(1), "image": noise.integers(0, 255, (16, 16, 3), np.uint8)})
            assert client.infer(observation(3)).actions[0, 0] == 3
    (error,) = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert error.startswith(f"recording ended: {tmp_path}")
    assert error.endswith("File too large; serving goes on")


SERVED = """
import sys
from policyserve import Server, ServerConfig
from tests.recordings.test_recorder import Sums
server = Server(lambda _: Sums(), ServerConfig(host="127.0.0.1", port=0, record=sys.argv[1]))
import asyncio
async def main():
    async with server:
        await server.ready()
        while not server.recorder.number:
            await asyncio.sleep(0.01)
        print(server.address.port, server.recorder.number, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("both", [False, True])
def test_a_server_that_is_killed_leaves_a_file_that_reads(tmp_path: Path, both: bool) -> None:
    command = [sys.executable, "-c", SERVED, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        port, writer = map(int, process.stdout.readline().split())
        with Client(f"ws://127.0.0.1:{port}") as client:
            for number in range(3):
                client.infer(observation(number))
            if both:
                until(lambda: _count_in(tmp_path) == 3)
                os.kill(writer, signal.SIGKILL)
            process.kill()
        process.wait(DEADLINE_S)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if not both:
        until(lambda: not recording_in(tmp_path).facts.is_cut)
    assert recording_in(tmp_path).facts.is_cut == both
    assert _count_in(tmp_path) == 3


def _count_in(directory: Path) -> int:
    return sum(
        exchange.actions is not None
        for path in files_in(directory)
        for session in open_recording(path).sessions
        for exchange in open_recording(path).exchanges(session.number)
    )


def test_requests_without_room_are_left_out_whole_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), serving(Sums(), record=str(tmp_path), record_queue_mib=1.0) as live:
        writer = writer_of(live)
        os.kill(writer, signal.SIGSTOP)  # it does not keep up
        try:
            with Client(f"ws://127.0.0.1:{live.port}") as client:
                asked = 2000
                for number in range(asked):
                    client.infer(observation(number % 200))
                recorder = live.server.recorder
                assert recorder is not None
                left_out = recorder.left_out
                assert 0 < left_out < asked
                page = live.http("GET", "/metrics")[1].decode()
        finally:
            os.kill(writer, signal.SIGCONT)
    assert f"policyserve_recording_left_out_total {float(left_out)}" in page
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert told
    assert told[0].startswith("recording: 1 request was left out, since the disk or the processor does not keep up (--")
    recording = recording_in(tmp_path)
    assert recording.facts.left_out == left_out
    exchanges = list(recording.exchanges(1))
    assert len(exchanges) == asked - left_out
    assert all(exchange.actions is not None for exchange in exchanges)


def test_a_directory_that_cannot_be_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "below", "Not a directory")):
        with pytest.raises(
            ConfigError, match=f"record: expected a directory that can be written, got {place}: {reason}"
        ):
            Recorder(Plan(str(place)))


def test_without_mcap_it_says_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"mcap is not installed; run: pip install 'policyserve\[record\]'"):
        Recorder(Plan(str(tmp_path)))


def test_before_it_has_started_it_takes_what_it_is_told(tmp_path: Path) -> None:
    recorder = Recorder(Plan(str(tmp_path)))
    recorder.on_session_opened(SessionFacts(1, "local", "openpi"))
    recorder.on_message(1, b"x", 0.0)
    recorder.on_sent(1, b"x")
    recorder.on_session_closed(1)
    assert not recorder.is_recording
    assert json.dumps(recorder.left_out) == "0"


def test_a_text_that_a_client_sends_is_told_as_one(tmp_path: Path) -> None:
    with serving(Sums(), record=str(tmp_path)) as live, live.websocket("/openpi") as peer:
        peer.recv()
        peer.send("hello")
        assert "bad_frame" in str(peer.recv(DEADLINE_S))
    (exchange,) = recording_in(tmp_path).exchanges(1)
    assert exchange.request == "hello"
    assert exchange.error is not None
    assert exchange.error.code == "bad_frame"
