"""Streams that lose what cannot be written."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from policyserve.core.output import LossyStream, lost_output, make_output_lossy


class Refusing(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("encoding", "written"), [("latin-1", b"3 ... \xe9 \xb7\n"), ("ascii", b"3 ... ? -\n")])
def test_what_an_encoding_lacks_is_replaced(encoding: str, written: bytes) -> None:
    kept = io.BytesIO()
    stream = LossyStream(io.TextIOWrapper(kept, encoding=encoding, newline="\n"))
    print("3 … é ·", file=stream, flush=True)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert kept.getvalue() == written
    assert stream.failure is None
    assert stream.encoding == encoding


def test_each_line_takes_the_place_of_another_programs_progress() -> None:
    kept = io.StringIO()
    stream: Any = LossyStream(kept, erases=True)
    stream.write("half")
    assert kept.getvalue() == ""
    stream.write(" a line\nand ")
    assert kept.getvalue() == "\r\x1b[Khalf a line\n"
    stream.flush()
    stream.flush()
    stream.write("another\nthird\n")
    assert kept.getvalue() == "\r\x1b[Khalf a line\n\r\x1b[Kand another\nthird\n"


def test_what_is_refused_is_lost_and_told() -> None:
    closed = io.StringIO()
    closed.close()
    for refusing in (Refusing(), closed):
        stream: Any = LossyStream(refusing)
        assert stream.write("abc") == 3
        stream.writelines(["a", "b"])
        stream.flush()
        assert isinstance(stream.failure, (OSError, ValueError))


def test_standard_streams_become_lossy_once_and_tell_of_their_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Refusing())
    monkeypatch.setattr("sys.stderr", None)
    assert lost_output() is None
    make_output_lossy()
    first = sys.stdout
    make_output_lossy()
    assert sys.stdout is first
    assert sys.stderr is None
    print("lost")
    assert "No space left" in str(lost_output())
