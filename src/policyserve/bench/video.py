"""Frames of an environment to a film: .gif by Pillow, .mp4 by an ffmpeg program."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, MissingDependency

ENDINGS = (".mp4", ".gif")

_GIF_FPS = 25  # a picture of a GIF lasts hundredths of a second, and viewers slow down those of one
_GIF_SIDE = 480  # pixels
GIF_FRAMES = 1000  # they are held until the end: 150 MB at that size
_END_S = 30.0


class Film(Protocol):
    """A film that is being written. left_out: how many frames came after its end."""

    left_out: int

    def add(self, frame: Array) -> None:
        """Append a frame, (height, width, 3) uint8, all of one size; raises ConfigError if it cannot be written."""
        ...

    def finish(self) -> None:
        """Write what is left; raises ConfigError if it cannot be written, or there is no frame."""
        ...

    def discard(self) -> None:
        """End it, whatever state it is in; its file is of no use."""
        ...


def check_encoder(path: Path) -> None:
    """Raise what is missing to write such a film: MissingDependency, or ConfigError where no ffmpeg is found."""
    if path.suffix.lower() == ".gif":
        _pillow()
    else:
        _ffmpeg()


@contextmanager
def filming(path: Path | None, fps: float) -> Iterator[Film | None]:
    """A film at this path, None without one; if the block raises, the film is taken away again."""
    if path is None:
        yield None
        return
    film: Film = _Gif(path, fps) if path.suffix.lower() == ".gif" else _Mp4(path, fps)
    try:
        yield film
        film.finish()
    except BaseException:
        film.discard()
        path.unlink(missing_ok=True)
        raise


class _Gif:
    """Frames are thinned out to 25 per second and shrunk to 480 pixels; it ends after 1000 of them."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._every = max(1, round(fps / _GIF_FPS))
        self._frame_ms = max(20, round(100 * self._every / fps) * 10)
        self._number = 0
        self._pictures: list[Any] = []
        self.left_out = 0

    def add(self, frame: Array) -> None:
        if len(self._pictures) == GIF_FRAMES:
            self.left_out += 1
        elif self._number % self._every == 0:
            picture = _pillow().fromarray(np.ascontiguousarray(frame))
            picture.thumbnail((_GIF_SIDE, _GIF_SIDE))
            self._pictures.append(picture.quantize())
        self._number += 1

    def finish(self) -> None:
        if not self._pictures:
            raise ConfigError(f"--video: {self._path}: there is no frame to show")
        first, *rest = self._pictures
        try:
            first.save(self._path, "GIF", save_all=True, append_images=rest, duration=self._frame_ms, loop=0)
        except OSError as error:
            raise _unwritable(self._path, error.strerror or str(error)) from error

    def discard(self) -> None:
        self._pictures.clear()


class _Mp4:
    """Frames go to an ffmpeg program as they come."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._program = _ffmpeg()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the film
        self._shape: tuple[int, ...] = ()
        self.left_out = 0

    def add(self, frame: Array) -> None:
        if self._process is None:
            self._shape = frame.shape
            self._process = self._start(*frame.shape[:2])
        if frame.shape != self._shape:
            raise ConfigError(f"--video: expected frames of one size, got {self._shape} and then {frame.shape}")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except OSError as error:  # it has ended, and says why
            self._wait()
            raise _unwritable(self._path, self._last_words() or str(error)) from error

    def finish(self) -> None:
        if self._process is None:
            raise ConfigError(f"--video: {self._path}: there is no frame to show")
        if self._wait() != 0:
            raise _unwritable(self._path, self._last_words() or f"{self._program} failed")
        self._said.close()

    def discard(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._wait()
        self._said.close()

    def _start(self, height: int, width: int) -> subprocess.Popen[bytes]:
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self._fps:g}", "-i", "-"]
        # Most players want yuv420p, which wants even sizes.
        film = ["-an", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
        command = [self._program, "-y", "-loglevel", "error", *source, *film, "-f", "mp4", str(self._path.absolute())]
        try:  # a session of its own: Ctrl-C is for the evaluation, which ends this
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self._said, stderr=self._said, start_new_session=True
            )
        except OSError as error:
            raise _unwritable(self._path, f"{self._program}: {error.strerror or error}") from error

    def _wait(self) -> int:
        assert self._process is not None
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


def _unwritable(path: Path, why: str) -> ConfigError:
    return ConfigError(f"--video: {path} cannot be written: {why}")


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency("Pillow", "video") from error
    return Image


def _ffmpeg() -> str:
    """The program: imageio-ffmpeg's, which pip installs, or one on the PATH."""
    try:
        return import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # it raises the latter where its package came without a program
        found = shutil.which("ffmpeg")
    if found is None:
        raise ConfigError("--video: .mp4 needs ffmpeg: run pip install 'policyserve[video]', or write a .gif")
    return found
