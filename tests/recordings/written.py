"""Small recordings, made in the open: openpi's and vibe_rl's messages for a policy of one camera and a state."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from policyserve import ActionChunk, ArraySpec, ImageSpec, PolicySpec, TextSpec, dialects
from policyserve.core.messages import Timing
from policyserve.recordings.file import RecordingFile
from policyserve.recordings.layout import Opened, PolicyFacts

SECOND = 1_000_000_000
BEGIN = 1_700_000_000 * SECOND
GREETING = dialects.by_name("openpi").write_request({"action_dim": 3})  # a map, as a greeting is
SPEC = PolicySpec(
    "toy",
    {"image": ImageSpec(8, 6, doc="wrist"), "state": ArraySpec((2,)), "prompt": TextSpec(default="go")},
    ArraySpec((3,), doc="x, y, grip"),
    horizon=2,
    metadata={"checkpoint": "toy-7"},
)


def observation(number: int) -> dict[str, object]:
    return {"image": np.full((8, 6, 3), number, np.uint8), "state": np.array([number, 0.5], np.float32)}


def actions(number: int) -> np.ndarray:
    return np.arange(6, dtype=np.float32).reshape(2, 3) + number


def request(number: int, dialect: str = "openpi") -> bytes:
    return dialects.by_name(dialect).write_request(observation(number))


def reply(number: int, dialect: str = "openpi") -> bytes:
    message = dialects.by_name(dialect).write_reply(ActionChunk(actions(number)), Timing(1.0, 2.0, 3.0))
    assert isinstance(message, bytes)
    return message


def write(file: RecordingFile, sessions: tuple[int, ...] = (1, 2), count: int = 5) -> None:
    """Sessions of so many exchanges each, of openpi; their events included."""
    file.tell_policy(PolicyFacts.of(SPEC))
    at = BEGIN
    for session in sessions:
        file.open_session(Opened(session, f"10.0.0.{session}:4000", "auto", at / 1e9))
        file.tell_dialect(session, "openpi", at)
        file.reply(session, 0, GREETING, at)
    for number in range(1, count + 1):
        for session in sessions:
            at += SECOND // 50
            file.request(session, number, request(number * session), at)
            file.reply(session, number, reply(number * session), at + SECOND // 100)
        file.flush()
    for session in sessions:
        file.close_session(session, at + SECOND)


def written(path: Path, sessions: tuple[int, ...] = (1, 2), count: int = 5) -> Path:
    """A whole file."""
    file = RecordingFile(path)
    write(file, sessions, count)
    file.close()
    return path
