"""Exported arrays are what was sent and answered, step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserve.dialects import by_name
from policyserve.recordings.exporting import export_npz
from policyserve.recordings.reading import RecordingError, open_recording
from tests.policies.frameworks import import_or_skip

import_or_skip("mcap.writer")

from policyserve.recordings.file import RecordingFile  # noqa: E402
from policyserve.recordings.layout import Opened  # noqa: E402
from tests.recordings.written import BEGIN, SECOND, actions, observation, reply, request, written  # noqa: E402


def test_each_session_is_a_file_of_arrays_with_an_axis_of_steps(tmp_path: Path) -> None:
    recording = open_recording(written(tmp_path / "one.mcap"))
    paths = export_npz(recording, tmp_path / "out" / "here")
    assert [path.name for path in paths] == ["session_1.npz", "session_2.npz"]
    with np.load(paths[1], allow_pickle=False) as found:
        assert set(found) == {"observation/image", "observation/state", "actions", "arrived_at", "left_at", "request"}
        assert np.array_equal(
            found["observation/image"], [np.asarray(observation(2 * n)["image"]) for n in range(1, 6)]
        )
        assert np.array_equal(found["actions"], [actions(2 * n) for n in range(1, 6)])
        assert found["request"].tolist() == [1, 2, 3, 4, 5]
        assert (found["left_at"] > found["arrived_at"]).all()
        assert found["arrived_at"][0] > BEGIN / SECOND


def changing(path: Path, observations: list[dict[str, object]]) -> Path:
    file = RecordingFile(path)
    file.open_session(Opened(1, "local", "openpi", BEGIN / 1e9))
    for number, one in enumerate(observations, 1):
        file.request(1, number, by_name("openpi").write_request(one), BEGIN)
        file.reply(1, number, reply(1), BEGIN)
    file.request(1, 99, request(1), BEGIN)  # has no answer
    file.close()
    return path


def test_texts_are_exported_and_what_has_no_answer_is_not(tmp_path: Path) -> None:
    path = changing(tmp_path / "one.mcap", [{"a": {"b": np.zeros(2)}, "prompt": "go"}] * 2)
    (exported,) = export_npz(open_recording(path), tmp_path)
    with np.load(exported) as found:
        assert found["observation/prompt"].tolist() == ["go", "go"]
        assert found["observation/a/b"].shape == (2, 2)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"x": np.zeros(3)}, r"observation/x: expected one shape, got \(2,\), \(3,\)"),
        ({"x": np.zeros(2), "y": 1}, "observation/y: expected it in each request, got it in 1 of 2"),
    ],
)
def test_what_has_no_one_shape_is_an_error_that_names_it(tmp_path: Path, second: dict[str, object], told: str) -> None:
    path = changing(tmp_path / "one.mcap", [{"x": np.zeros(2)}, second])
    with pytest.raises(RecordingError, match=f"one.mcap: session 1: {told}"):
        export_npz(open_recording(path), tmp_path)
