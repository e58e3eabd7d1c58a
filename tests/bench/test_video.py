"""Films of an environment: what is written, and what is missing to write it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve.bench import video
from policyserve.bench.video import check_encoder, filming
from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, MissingDependency

# It keeps its arguments and counts what it is sent, as the file that it is told to write.
FFMPEG = """#!{python}
import sys
told = sys.argv[-1]
sent = len(sys.stdin.buffer.read())
if "broken" in told:
    sys.exit("first\\nUnknown encoder of broken films")
open(told, "w").write(" ".join(sys.argv[1:-1]) + f" {{sent}} bytes")
"""


def filmed(path: Path, *frames: Array, error: BaseException | None = None) -> None:
    """Film these frames, and then raise."""
    with filming(path, fps=50) as film:
        assert film is not None
        for one in frames:
            film.add(one)
        if error is not None:
            raise error


def frame(shade: int, height: int = 31, width: int = 101) -> Array:
    return np.full((height, width, 3), shade, np.uint8)


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, with a program called ffmpeg; no other is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(FFMPEG.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_a_gif_shows_25_frames_a_second_at_most_and_of_a_size_that_can_be_sent(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "out.gif"
    filmed(path, *(frame(10 * shade, 600, 960) for shade in range(20)))
    with image.open(path) as shown:
        assert (shown.n_frames, shown.size, shown.info["duration"]) == (10, (480, 300), 40)
        shown.seek(3)
        assert abs(shown.convert("RGB").getpixel((5, 5))[0] - 60) <= 2


def test_a_gif_has_an_end_and_counts_what_came_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(video, "GIF_FRAMES", 3)
    path = tmp_path / "out.gif"
    with filming(path, fps=25) as film:
        assert film is not None
        for shade in range(5):
            film.add(frame(50 * shade))
        assert film.left_out == 2
    with image.open(path) as shown:
        assert shown.n_frames == 3


def test_a_film_for_ffmpeg_has_its_size_and_rate(ffmpeg: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    check_encoder(path)
    filmed(path, *map(frame, range(3)))
    told = path.read_text()
    assert "-f rawvideo -pix_fmt rgb24 -s 101x31 -r 50 -i -" in told
    assert told.endswith(f" {3 * 31 * 101 * 3} bytes")


def test_real_ffmpeg_writes_a_film(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "out.mp4"
    filmed(path, *(frame(8 * shade) for shade in range(30)))
    assert path.read_bytes()[4:8] == b"ftyp"


def test_without_a_path_nothing_is_filmed() -> None:
    with filming(None, 30) as film:
        assert film is None


def test_what_is_missing_is_named_with_the_cure(ffmpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ffmpeg / "ffmpeg").unlink()
    with pytest.raises(ConfigError, match=r"\.mp4 needs ffmpeg: run pip install 'policyserve\[video\]', or write a"):
        check_encoder(Path("out.mp4"))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependency, match=r"Pillow is not installed; run: pip install 'policyserve\[video\]'"):
        check_encoder(Path("out.gif"))


def test_a_film_that_ffmpeg_cannot_write_is_told_in_its_words_and_leaves_nothing(ffmpeg: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    with pytest.raises(ConfigError, match=r"broken\.mp4 cannot be written: Unknown encoder of broken films"):
        filmed(path, frame(1))
    assert not path.exists()


@pytest.mark.parametrize("name", ["out.gif", "out.mp4"])
def test_a_film_that_is_given_up_leaves_nothing(name: str, ffmpeg: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    path = tmp_path / name
    with pytest.raises(KeyboardInterrupt):
        filmed(path, frame(1), error=KeyboardInterrupt())
    assert os.listdir(tmp_path) == ["bin"]


@pytest.mark.parametrize("name", ["out.gif", "out.mp4"])
def test_a_film_of_nothing_is_none(name: str, ffmpeg: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no frame to show"):
        filmed(tmp_path / name)


def test_frames_of_two_sizes_make_no_film(ffmpeg: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"frames of one size, got \(31, 101, 3\) and then \(40, 101, 3\)"):
        filmed(tmp_path / "out.mp4", frame(1), frame(1, height=40))
