"""Ctrl-C before the command has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_COMMAND = "import sys; from policyserve.entry_point import main; sys.argv[1:] = ['serve', 'demo_image']; main()"
# In place of a package that the command imports. Some libraries catch whatever their own imports raise.
_SLOW = "import signal\nprint('importing', flush=True)\nsignal.pause()\n"
_CATCHING = "import signal\ntry:\n    print('importing', flush=True)\n    signal.pause()\nexcept BaseException: ...\n"


def started(folder: Path, module: str, text: str, **options: object) -> subprocess.Popen[str]:
    (folder / f"{module}.py").write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to send here")
@pytest.mark.parametrize("text", [_SLOW, _CATCHING], ids=["slow", "catching"])
@pytest.mark.parametrize("module", ["tyro", "numpy", "msgpack"])
def test_an_interrupt_during_the_imports_ends_the_command_with_130_and_no_word(
    tmp_path: Path, module: str, text: str
) -> None:
    with started(tmp_path, module, text) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to send here")
def test_a_command_in_a_shells_background_hears_no_interrupt(tmp_path: Path) -> None:
    """There SIGINT is ignored when the program begins, and stays so."""
    text = "import signal\nprint('importing', flush=True)\nraise OSError(signal.getsignal(2).name)\n"
    ignoring = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = started(tmp_path, "tyro", text)
    finally:
        signal.signal(signal.SIGINT, ignoring)
    with process:
        _, err = process.communicate(timeout=30)
    assert err.endswith("OSError: SIG_IGN\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to send here")
def test_an_interrupt_that_a_command_does_not_catch_is_no_traceback() -> None:
    text = (
        "import policyserve.cli.serve as serve, signal\n"
        "def wait(argv):\n    print('begun', flush=True)\n    signal.pause()\n"
        "serve.main = wait\n"
    )
    command = [sys.executable, "-c", text + _COMMAND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
