"""A recording is read as it was written, up to where it was cut, and what is none is refused in one line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyserve import dialects
from policyserve.core.dialect import opening_of
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import BadObservation, Overloaded
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import ImageSpec, PolicySpec
from policyserve.recordings.reading import RecordingError, open_recording
from policyserve.transforms import jpeg
from tests.jpegs import picture
from tests.policies.frameworks import import_or_skip

mcap_writer = import_or_skip("mcap.writer")

from policyserve.recordings.file import RecordingFile  # noqa: E402
from policyserve.recordings.layout import Opened, PolicyFacts  # noqa: E402
from tests.recordings.written import BEGIN, SECOND, SPEC, actions, observation, request, written  # noqa: E402


def test_a_recording_tells_what_was_served_and_who_asked(tmp_path: Path) -> None:
    recording = open_recording(written(tmp_path / "one.mcap"))
    facts = recording.facts
    assert (facts.policy, facts.checkpoint, facts.left_out, facts.is_cut) == ("toy", "toy-7", 0, False)
    assert facts.spec is not None
    assert facts.spec.describe() == SPEC.describe()
    assert [(one.number, one.peer, one.dialect) for one in recording.sessions] == [
        (1, "10.0.0.1:4000", "openpi"),
        (2, "10.0.0.2:4000", "openpi"),
    ]
    assert recording.sessions[0].opened_at == BEGIN / 1e9
    assert recording.sessions[0].closed_at is not None


def test_exchanges_hold_what_was_asked_and_answered_in_order(tmp_path: Path) -> None:
    recording = open_recording(written(tmp_path / "one.mcap"))
    exchanges = list(recording.exchanges(2))
    assert [exchange.number for exchange in exchanges] == [1, 2, 3, 4, 5]
    assert [exchange.reset for exchange in exchanges] == [True, False, False, False, False]
    for exchange in exchanges:
        wanted = observation(exchange.number * 2)
        assert np.array_equal(exchange.observation["image"], np.asarray(wanted["image"]))
        assert exchange.observation["prompt"] == "go"  # the spec's default, as the policy got it
        assert "prompt" not in exchange.sent
        assert exchange.actions is not None
        assert np.array_equal(exchange.actions, actions(exchange.number * 2))
        assert exchange.error is None
        assert exchange.left_at is not None
        assert exchange.left_at - exchange.arrived_at == pytest.approx(0.01, abs=1e-6)


def test_what_a_server_refused_says_why(tmp_path: Path) -> None:
    file = RecordingFile(tmp_path / "refused.mcap")
    for session, dialect in ((1, "openpi"), (2, "vibe_rl")):
        file.open_session(Opened(session, "local", dialect, BEGIN / 1e9))
        file.request(session, 1, request(1, dialect), BEGIN)
        file.refuse(session, 1, "overloaded", "the queue is full", BEGIN)
    told = dialects.by_name("openpi").write_error(Overloaded("the queue is full")).message
    assert isinstance(told, str)
    file.reply(1, 1, told.encode(), BEGIN + 1, is_text=True)
    file.close()
    recording = open_recording(file.path)
    for session in (1, 2):
        (exchange,) = recording.exchanges(session)
        assert exchange.error == ("overloaded", "the queue is full")
        assert exchange.actions is None
        assert isinstance(exchange.reply, str) == (session == 1)


def test_a_text_of_another_server_is_an_error_of_its_own(tmp_path: Path) -> None:
    file = RecordingFile(tmp_path / "foreign.mcap")
    file.open_session(Opened(1, "local", "openpi", BEGIN / 1e9))
    file.request(1, 1, request(1), BEGIN)
    file.reply(1, 1, b"Traceback: a KeyError", BEGIN, is_text=True)
    file.close()
    (exchange,) = open_recording(file.path).exchanges(1)
    assert exchange.error == ("remote", "Traceback: a KeyError")
    assert open_recording(file.path).facts.spec is None


def test_an_observation_that_the_spec_refuses_is_refused_when_it_is_looked_at(tmp_path: Path) -> None:
    file = RecordingFile(tmp_path / "bad.mcap")
    from policyserve.recordings.layout import PolicyFacts

    file.tell_policy(PolicyFacts.of(SPEC))
    file.open_session(Opened(1, "local", "openpi", BEGIN / 1e9))
    file.request(1, 1, dialects.by_name("openpi").write_request({"state": np.zeros(2)}), BEGIN)
    file.close()
    (exchange,) = open_recording(file.path).exchanges(1)
    assert list(exchange.sent) == ["state"]
    with pytest.raises(BadObservation, match="image"):
        _ = exchange.observation


def test_a_request_that_was_left_out_is_counted_and_not_told(tmp_path: Path) -> None:
    file = RecordingFile(tmp_path / "left.mcap")
    file.open_session(Opened(1, "local", "openpi", BEGIN / 1e9))
    file.request(1, 1, request(1), BEGIN)
    file.leave_out(1, 1, BEGIN)
    file.leave_out(1, 2, BEGIN)
    file.request(1, 3, request(3), BEGIN)
    file.flush()
    for is_cut in (True, False):
        if not is_cut:
            file.close()
        recording = open_recording(file.path)
        assert (recording.facts.left_out, recording.facts.is_cut) == (2, is_cut)
        assert [exchange.number for exchange in recording.exchanges(1)] == [3]


def test_what_asked_for_no_actions_is_no_exchange(tmp_path: Path) -> None:
    wire = dialects.by_name("vla_eval")
    file = RecordingFile(tmp_path / "one.mcap")
    file.tell_policy(PolicyFacts.of(SPEC))
    file.open_session(Opened(1, "10.0.0.1:4000", "vla_eval", BEGIN / 1e9))
    for number, message in enumerate([*opening_of(wire), wire.write_request(observation(5)), b"no message"], start=1):
        file.request(1, number, message, BEGIN + number)
    answer = wire.write_reply(ActionChunk(actions(5)[0]), Timing(1.0, 2.0, 3.0))
    assert isinstance(answer, bytes)
    file.reply(1, 3, answer, BEGIN + 9)
    file.close_session(1, BEGIN + SECOND)
    file.close()
    first, second = open_recording(tmp_path / "one.mcap").exchanges(1)
    assert (first.number, first.reset, second.reset) == (3, True, False)
    assert first.actions is not None
    assert first.actions.tolist() == actions(5)[0].tolist()
    assert (second.number, second.request) == (4, b"no message")


def test_a_request_without_its_reply_has_none(tmp_path: Path) -> None:
    file = RecordingFile(tmp_path / "lost.mcap")
    file.open_session(Opened(1, "local", "openpi", BEGIN / 1e9, is_continued=True))
    file.request(1, 7, request(7), BEGIN)
    file.close_session(1, BEGIN + SECOND)
    file.close()
    recording = open_recording(file.path)
    (exchange,) = recording.exchanges(1)
    assert (exchange.reply, exchange.left_at, exchange.actions, exchange.error) == (None, None, None, None)
    assert not exchange.reset
    assert recording.sessions[0].is_continued


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("whole") / "whole.mcap")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 12000))
def test_a_recording_that_was_cut_anywhere_reads_up_to_there(tmp_path: Path, whole: Path, cut: int) -> None:
    content = whole.read_bytes()
    cut = min(cut, len(content) - 1)
    path = tmp_path / "cut.mcap"
    path.write_bytes(content[:cut])
    if cut < content.index(b"policyserve.policy") - 13:  # MCAP's header and the record that tells the format
        with pytest.raises(RecordingError):
            open_recording(path)
        return
    recording = open_recording(path)
    assert recording.facts.is_cut
    for session in recording.sessions:
        exchanges = list(recording.exchanges(session.number))
        assert [exchange.number for exchange in exchanges] == list(range(1, len(exchanges) + 1))
        for exchange in exchanges:
            if exchange.actions is not None:
                assert np.array_equal(exchange.actions, actions(exchange.number * session.number))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_camera_frames_that_are_stored_as_they_are_read_up_to_a_cut_or_a_changed_byte(
    tmp_path: Path, data: st.DataObject
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    sent = dialects.by_name("openpi").write_request({"image": noise, "state": np.zeros(2, np.float32)})
    assert isinstance(sent, bytes)
    path = tmp_path / "frames.mcap"
    path.unlink(missing_ok=True)
    file = RecordingFile(path)
    file.open_session(Opened(1, "10.0.0.1:4000", "openpi", BEGIN / 1e9))
    for number in range(1, 4):
        file.request(1, number, sent, BEGIN + number * SECOND)
    file.close()
    content = path.read_bytes()
    place = data.draw(st.integers(len(sent) // 2, 3 * len(sent)), "place")  # in the frames
    is_cut = data.draw(st.booleans(), "is cut")
    path.write_bytes(
        content[:place] if is_cut else content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    )
    recording = open_recording(path)
    found = [exchange.request for session in recording.sessions for exchange in recording.exchanges(session.number)]
    assert len(found) < 3
    assert all(request == sent for request in found)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_in_a_recording_raise_nothing_else(tmp_path: Path, whole: Path, data: st.DataObject) -> None:
    content = whole.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=40))
    path = tmp_path / "noise.mcap"
    path.write_bytes(content[:place] + noise + content[place + len(noise) :])
    with suppress(RecordingError):
        recording = open_recording(path)
        for session in recording.sessions:
            for exchange in recording.exchanges(session.number):
                assert exchange.request


def test_what_is_no_recording_is_refused_in_one_line_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="expected a recording, got no such file"):
        open_recording(tmp_path / "absent.mcap")
    with pytest.raises(RecordingError, match="got a directory"):
        open_recording(tmp_path)
    (tmp_path / "text.mcap").write_text("hello")
    with pytest.raises(RecordingError, match=r"text.mcap: expected an MCAP file of policyserve, got one that begins"):
        open_recording(tmp_path / "text.mcap")
    (tmp_path / "empty.mcap").write_bytes(b"")
    with pytest.raises(RecordingError, match="got an empty file"):
        open_recording(tmp_path / "empty.mcap")


def test_a_file_of_another_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ros.mcap"
    with path.open("wb") as stream:
        writer = mcap_writer.Writer(stream)
        writer.start("ros2", "rosbag2 0.20")
        writer.finish()
    with pytest.raises(RecordingError, match=r"expected a recording of policyserve, got one of rosbag2 0\.20"):
        open_recording(path)


def test_a_recording_of_another_version_is_refused(tmp_path: Path) -> None:
    file = RecordingFile(tmp_path / "later.mcap", {"format": "2", "version": "9.9"})
    file.close()
    with pytest.raises(RecordingError, match=r"expected a recording of format 1, got format 2 of policyserve 9\.9"):
        open_recording(file.path)


def test_a_session_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"expected one of its sessions \(1, 2\), got 3"):
        open_recording(written(tmp_path / "one.mcap")).exchanges(3)


def test_a_recorded_jpeg_is_the_picture_that_the_policy_got(tmp_path: Path) -> None:
    import_or_skip("simplejpeg")
    image = jpeg.encode(picture(), 90)
    spec = PolicySpec("camera", {"cam": ImageSpec(48, 64)}, None)
    for served in (spec, PolicySpec("any", None, None)):
        file = RecordingFile(tmp_path / f"{served.name}.mcap")
        file.tell_policy(PolicyFacts.of(served))
        file.open_session(Opened(1, "10.0.0.1:4000", "openpi", 1.0))
        file.request(1, 1, dialects.by_name("openpi").write_request({"cam": image}), SECOND)
        broken = EncodedImage(bytes(image.data)[:-30])
        file.request(1, 2, dialects.by_name("openpi").write_request({"cam": broken}), 2 * SECOND)
        file.close()
        good, bad = open_recording(tmp_path / f"{served.name}.mcap").exchanges(1)
        expected = jpeg.decode(image, "cam")
        np.testing.assert_array_equal(good.sent["cam"], expected)
        np.testing.assert_array_equal(good.observation["cam"], expected)
        with pytest.raises(BadObservation, match="cam: expected a baseline JPEG, in colour or gray, got one that is"):
            _ = bad.sent
