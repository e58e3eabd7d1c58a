"""A recording as a dataset of LeRobot's, written by LeRobot's own package: one episode for each session."""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.core.leaf_specs import ImageSpec
from policyserve.core.spec import PolicySpec, look_up, paths_in
from policyserve.recordings.exporting import is_answered
from policyserve.recordings.layout import RecordingError
from policyserve.recordings.reading import Exchange, Recording
from policyserve.recordings.views import names_of, picture_of

_TASKS = ("prompt", "task", "instruction")  # what clients call the text that LeRobot calls the task
_COLOURS = ["height", "width", "channels"]


def export_lerobot(recording: Recording, directory: Path, fps: int | None = None) -> int:
    """Write a LeRobot dataset; returns its episodes, one for each session that has an answer.

    A frame is a request: arrays are `observation.…`, pictures `observation.images.…` (PNG, as they were), the prompt
    the task, and `action` the first action of the answer. fps: of the dataset; None: as the sessions asked. Raises
    MissingDependency without lerobot, ConfigError for a directory that is there, RecordingError, OSError.
    """
    if directory.exists():
        raise ConfigError(f"--out: expected a directory that is not there yet, got {directory}")
    dataset_class = _dataset_class()
    spec = recording.facts.spec
    dataset: Any = None
    features: dict[str, Any] = {}
    episodes = 0
    pace = fps or pace_of(recording)
    if pace is None:
        return 0
    try:
        for session in recording.sessions:
            has_frames = False
            for exchange in _answered(recording, session.number):
                frame = frame_of(exchange, spec)
                if dataset is None:
                    features = features_of(frame, spec)
                    name = f"policyserve/{recording.path.stem}"
                    dataset = dataset_class.create(name, pace, features, root=directory, use_videos=False)
                _check(frame, features, f"{recording.path}: session {session.number}, request {exchange.number}")
                dataset.add_frame(frame)
                has_frames = True
            if has_frames:
                dataset.save_episode()
                episodes += 1
        if hasattr(dataset, "finalize"):  # LeRobot 0.3 has none
            dataset.finalize()
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)  # half a dataset is none
        raise
    return episodes


def pace_of(recording: Recording) -> int | None:
    """How often a session asks in a second, at least 1: by the median of all pauses; None without an answer."""
    pauses: list[float] = []
    has_answer = False
    for session in recording.sessions:
        times = [exchange.arrived_at for exchange in _answered(recording, session.number)]
        has_answer = has_answer or bool(times)
        pauses += [after - before for before, after in pairwise(times) if after > before]
    if not has_answer:
        return None
    return max(round(1 / median(pauses)), 1) if pauses else 1


def frame_of(exchange: Exchange, spec: PolicySpec | None) -> dict[str, Any]:
    """A frame as LeRobot's package takes it."""
    frame: dict[str, Any] = {"task": ""}
    texts: dict[str, str] = {}
    for path in paths_in(exchange.sent):
        value = look_up(exchange.sent, path)
        if isinstance(value, str):
            texts[path] = value
            continue
        array = np.asarray(value)
        leaf = None if spec is None else spec.leaves.get(path)
        picture = picture_of(array) if leaf is None or isinstance(leaf, ImageSpec) else None
        if picture is not None:
            frame[_named("observation.images", path, frame)] = _coloured(picture)
        elif array.dtype.kind in "biuf":
            frame[_named("observation", path, frame)] = array.reshape(array.shape or (1,))
    if texts:
        told = [path for path in texts if path.rpartition("/")[2] in _TASKS] or list(texts)
        frame["task"] = texts[told[0]]
    actions = np.asarray(exchange.actions)
    rank = 1 if spec is None or spec.action is None else len(spec.action.shape)
    first = actions.reshape(-1, *actions.shape[actions.ndim - min(rank, actions.ndim) :])[0]
    frame["action"] = np.atleast_1d(first)
    return frame


def features_of(frame: Mapping[str, Any], spec: PolicySpec | None) -> dict[str, Any]:
    """What LeRobot's package wants to know of a dataset: dtype, shape and names of each key, by a first frame."""
    leaves = {} if spec is None else {_named("observation", path, ()): leaf for path, leaf in spec.leaves.items()}
    features: dict[str, Any] = {}
    for key, value in frame.items():
        if key == "task":
            continue
        if key.startswith("observation.images."):
            features[key] = {"dtype": "image", "shape": value.shape, "names": _COLOURS}
            continue
        leaf = (None if spec is None else spec.action) if key == "action" else leaves.get(key)
        features[key] = {"dtype": value.dtype.name, "shape": value.shape, "names": names_of(value.size, leaf) or None}
    return features


def _named(prefix: str, path: str, taken: Container[str]) -> str:
    """LeRobot's name for a path, which has no slash and does not say a word twice; another one than those taken."""
    parts = path.split("/")
    for word in prefix.split("."):
        if len(parts) > 1 and parts[0] == word:
            parts = parts[1:]
    name = f"{prefix}.{'.'.join(parts).removeprefix(f'{prefix}.')}"
    while name in taken:
        name += "_"
    return name


def _coloured(picture: Array) -> Array:
    """(H, W, 3) of a picture that may be grey."""
    return np.ascontiguousarray(np.repeat(picture[..., None], 3, axis=-1) if picture.ndim == 2 else picture)


def _check(frame: Mapping[str, Any], features: Mapping[str, Any], where: str) -> None:
    """Raise RecordingError where a frame has not what the first one had."""
    for key in sorted({*frame, *features} - {"task"}):
        if key not in features or key not in frame:
            told = "expected it in each request, or in none" if key in features else "expected none, as in the first"
            raise RecordingError(f"{where}: {key}: {told}, got {'none' if key in features else 'one'}")
        dtype = "image" if features[key]["dtype"] == "image" else frame[key].dtype.name
        if (dtype, frame[key].shape) != (features[key]["dtype"], features[key]["shape"]):
            expected = f"{features[key]['dtype']} {features[key]['shape']}, as in the first"
            raise RecordingError(f"{where}: {key}: expected {expected}, got {dtype} {frame[key].shape}")


def _answered(recording: Recording, session: int) -> Iterator[Exchange]:
    exchanges: Iterable[Exchange] = recording.exchanges(session)
    return (exchange for exchange in exchanges if is_answered(exchange))


def _dataset_class() -> Any:
    try:
        found = import_module("lerobot.datasets.lerobot_dataset").LeRobotDataset
        with suppress(Exception):  # a later version may not use it; then its bars are not ours to hide
            import_module("datasets").disable_progress_bars()
        return found
    except ModuleNotFoundError as error:
        told = f"--to lerobot: {error.name} is not installed; LeRobot's own package writes its datasets"
        advice = "install policyserve[record] where lerobot is installed"
        raise MissingDependency(error.name or "lerobot", "", f"{told}: {advice}") from error
    except Exception as error:  # a framework that does not fit another: lerobot's torch and torchvision, say
        raise PolicyserveError(f"--to lerobot: lerobot cannot be imported: {error}".split("\n", 1)[0]) from error
