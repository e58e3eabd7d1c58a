"""A recording as a LeRobot dataset: by LeRobot's own package where it is, else by a stand-in of its signatures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from policyserve import ActionChunk
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.core.messages import Timing
from policyserve.dialects import by_name
from policyserve.recordings.exporting_lerobot import export_lerobot, pace_of
from policyserve.recordings.reading import RecordingError, open_recording
from tests.policies.frameworks import import_or_skip

import_or_skip("mcap.writer")

from policyserve.recordings.file import RecordingFile  # noqa: E402
from policyserve.recordings.layout import Opened  # noqa: E402
from tests.recordings.written import BEGIN, SECOND, actions, observation, reply, request, written  # noqa: E402

MODULE = "lerobot.datasets.lerobot_dataset"
_OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index", "task")


class StandIn:
    """Keeps what LeRobot's LeRobotDataset is given; as that does, it refuses a frame that its features do not fit."""

    written: StandIn

    def __init__(self, features: dict[str, Any], fps: int, root: Path) -> None:
        self.features, self.fps, self.root = features, fps, root
        self.frames: list[dict[str, Any]] = []
        self.episode_ends: list[int] = []
        self.is_final = False

    @classmethod
    def create(
        cls, repo_id: str, fps: int, features: dict[str, Any], root: Path, robot_type: str = "", use_videos: bool = True
    ) -> StandIn:
        assert not use_videos
        assert repo_id.count("/") == 1
        root.mkdir()
        cls.written = cls(features, fps, root)
        return cls.written

    def add_frame(self, frame: dict[str, Any]) -> None:
        assert set(frame) == {*self.features, "task"}
        for key, feature in self.features.items():
            assert "/" not in key
            assert frame[key].shape == feature["shape"]
            assert feature["dtype"] == "image" or frame[key].dtype == np.dtype(feature["dtype"])
        self.frames.append(frame)

    def save_episode(self) -> None:
        self.episode_ends.append(len(self.frames))

    def finalize(self) -> None:
        self.is_final = True


def real() -> Any:
    """LeRobot's class; None where it is not, or does not import."""
    if MODULE not in sys.modules:
        try:
            __import__(MODULE)
        except Exception:  # whatever its frameworks raise
            return None
    return sys.modules[MODULE].LeRobotDataset


@pytest.fixture
def has_lerobot(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether LeRobot itself is here; if not, the stand-in is in its place."""
    if real() is not None:
        return True
    package = ModuleType(MODULE)
    package.LeRobotDataset = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, package)
    return False


def told(directory: Path, has_lerobot: bool) -> tuple[dict[str, Any], list[dict[str, Any]], list[int], int]:
    """Features, frames with pictures of (H, W, 3) uint8, the frames at which episodes end, frames in a second."""
    if not has_lerobot:
        dataset = StandIn.written
        assert dataset.is_final
        assert dataset.root == directory
        return dataset.features, dataset.frames, dataset.episode_ends, dataset.fps
    dataset = real()("policyserve/one", root=directory)
    frames = [
        {key: getattr(value, "numpy", lambda value=value: value)() for key, value in row.items()} for row in dataset
    ]
    for frame in frames:
        for key in frame:
            if key.startswith("observation.images."):
                frame[key] = (frame[key].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    info = json.loads((directory / "meta" / "info.json").read_text())
    features = {key: value for key, value in info["features"].items() if key not in _OWN}
    episodes = [int(frame["episode_index"]) for frame in frames]
    ends = [
        index for index in range(1, len(frames) + 1) if episodes[index - 1 : index + 1] != [episodes[index - 1]] * 2
    ]
    return features, frames, ends, info["fps"]


def test_each_session_is_an_episode_with_its_pictures_state_task_and_first_actions(
    tmp_path: Path, has_lerobot: bool
) -> None:
    recording = open_recording(written(tmp_path / "one.mcap"))
    assert export_lerobot(recording, tmp_path / "out") == 2
    features, frames, ends, fps = told(tmp_path / "out", has_lerobot)
    assert set(features) == {"observation.images.image", "observation.state", "action"}
    image = features["observation.images.image"]
    assert (image["dtype"], tuple(image["shape"]), image["names"]) == (
        "image",
        (8, 6, 3),
        ["height", "width", "channels"],
    )
    assert (features["action"]["dtype"], features["action"]["names"]) == ("float32", ["x", "y", "grip"])
    assert features["observation.state"]["names"] is None
    assert (ends, fps) == ([5, 10], 25)
    for index, frame in enumerate(frames):
        number = (index % 5 + 1) * (index // 5 + 1)
        assert np.array_equal(frame["observation.images.image"], np.asarray(observation(number)["image"]))
        assert np.array_equal(frame["observation.state"], np.asarray(observation(number)["state"]))
        assert np.array_equal(frame["action"], actions(number)[0])
        assert frame["task"] == ""


def changing(path: Path, observations: list[dict[str, Any]]) -> Path:
    file = RecordingFile(path)
    file.open_session(Opened(1, "local", "openpi", BEGIN / 1e9))
    for number, one in enumerate(observations, 1):
        sent = by_name("openpi").write_request(one)
        assert isinstance(sent, bytes)
        file.request(1, number, sent, BEGIN + number * SECOND // 10)
        file.reply(1, number, reply(1), BEGIN + number * SECOND // 10)
    file.request(1, 99, request(1), BEGIN + 100 * SECOND)  # has no answer
    file.close()
    return path


def test_names_of_other_servers_become_lerobots_and_nothing_is_lost(tmp_path: Path, has_lerobot: bool) -> None:
    sent = {
        "observation": {"wrist_image": np.zeros((4, 5, 3), np.uint8), "state": np.zeros(2), "gripper": np.float32(0.5)},
        "state": np.ones(3),
        "images": {"top": np.zeros((3, 4, 5), np.uint8), "depth": np.full((4, 5), 9, np.uint8)},
        "prompt": "pick it up",
        "note": "left arm",
    }
    recording = open_recording(changing(tmp_path / "one.mcap", [sent] * 3))
    assert export_lerobot(recording, tmp_path / "out", fps=30) == 1
    features, frames, ends, fps = told(tmp_path / "out", has_lerobot)
    assert {key: tuple(feature["shape"]) for key, feature in features.items()} == {
        "observation.images.wrist_image": (4, 5, 3),
        "observation.images.top": (4, 5, 3),
        "observation.images.depth": (4, 5, 3),
        "observation.state": (2,),
        "observation.state_": (3,),
        "observation.gripper": (1,),
        "action": (3,),
    }
    assert (ends, fps, frames[0]["task"]) == ([3], 30, "pick it up")
    assert (frames[0]["observation.images.depth"] == 9).all()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"state": np.zeros(3)}, "observation.state: expected float64 (2,), as in the first, got float64 (3,)"),
        ({"state": np.zeros(2, np.float32)}, "expected float64 (2,), as in the first, got float32 (2,)"),
        ({"state": np.zeros(2), "more": np.zeros(1)}, "observation.more: expected none, as in the first, got one"),
        ({"other": np.zeros(2)}, "observation.other: expected none, as in the first, got one"),
    ],
)
def test_what_has_no_one_shape_is_an_error_that_names_it_and_leaves_nothing(
    tmp_path: Path, has_lerobot: bool, second: dict[str, Any], expected: str
) -> None:
    recording = open_recording(changing(tmp_path / "one.mcap", [{"state": np.zeros(2)}, second]))
    with pytest.raises(RecordingError, match="session 1, request 2: ") as caught:
        export_lerobot(recording, tmp_path / "out")
    assert expected in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_there_is_not_written_to(tmp_path: Path, has_lerobot: bool) -> None:
    recording = open_recording(written(tmp_path / "one.mcap"))
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="--out: expected a directory that is not there yet"):
        export_lerobot(recording, tmp_path / "out")


def test_a_recording_without_an_answer_writes_nothing(tmp_path: Path, has_lerobot: bool) -> None:
    recording = open_recording(written(tmp_path / "one.mcap", count=0))
    assert export_lerobot(recording, tmp_path / "out") == 0
    assert not (tmp_path / "out").exists()


def test_the_pace_is_that_of_the_sessions(tmp_path: Path) -> None:
    assert pace_of(open_recording(written(tmp_path / "one.mcap", sessions=(1,)))) == 50
    assert pace_of(open_recording(written(tmp_path / "lone.mcap", sessions=(1,), count=1))) == 1
    assert pace_of(open_recording(written(tmp_path / "none.mcap", count=0))) is None


def test_one_action_a_request_is_that_action(tmp_path: Path, has_lerobot: bool) -> None:
    file = RecordingFile(tmp_path / "one.mcap")
    file.open_session(Opened(1, "local", "openpi", BEGIN / 1e9))
    answer = by_name("openpi").write_reply(ActionChunk(np.array([1, 2], np.float32)), Timing(1.0, 2.0, 3.0))
    assert isinstance(answer, bytes)
    file.request(1, 1, request(1), BEGIN)
    file.reply(1, 1, answer, BEGIN)
    file.close()
    assert export_lerobot(open_recording(tmp_path / "one.mcap"), tmp_path / "out") == 1
    _, (frame,), _, _ = told(tmp_path / "out", has_lerobot)
    assert frame["action"].tolist() == [1, 2]


def test_without_lerobot_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = open_recording(written(tmp_path / "one.mcap"))
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(MissingDependency, match="is not installed; LeRobot's own package writes its datasets"):
        export_lerobot(recording, tmp_path / "out")


def test_a_lerobot_that_does_not_import_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = open_recording(written(tmp_path / "one.mcap"))

    def fail(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr("policyserve.recordings.exporting_lerobot.import_module", fail)
    with pytest.raises(PolicyserveError) as caught:
        export_lerobot(recording, tmp_path / "out")
    assert str(caught.value) == "--to lerobot: lerobot cannot be imported: operator torchvision::nms does not exist"
