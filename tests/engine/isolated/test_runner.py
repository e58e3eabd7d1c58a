"""A policy's own process: its deaths, its server's death, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered
from policyserve.core.errors import PolicyFailed, PolicyLost
from policyserve.core.recipe import Recipe
from policyserve.engine.isolated.runner import ProcessRunner
from tests.engine.running import PATIENCE_S, ask, infer, mark, recipe, task, until, value, with_runner

IMAGE = np.zeros((100, 100), np.uint8)


async def lost(runner: Any, x: float, do: str) -> tuple[str, list[str]]:
    """Ask what it dies of; gives the error's text and the reasons that on_broken got."""
    reasons: list[str] = []
    runner.on_broken = reasons.append
    outcome = await ask(runner, x, do)
    assert isinstance(outcome, PolicyLost)
    assert outcome.retryable
    return str(outcome), reasons


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, "was killed by SIGKILL (by the system, if memory ran out)"),
        (signal.SIGSEGV, "was killed by SIGSEGV"),
        (0, "ended with exit code 3"),
    ],
)
def test_a_process_that_dies_fails_its_batch_with_an_error_that_says_how(number: int, how: str) -> None:
    async def talk(runner: ProcessRunner) -> None:
        text, reasons = await lost(runner, number, "die")
        assert how in text
        assert len(reasons) == 1
        assert reasons[0].endswith(how)
        assert isinstance(await ask(runner), PolicyLost)  # and it knows that it is gone

    with_runner(ProcessRunner(recipe()), talk)


def test_a_process_that_dies_while_nothing_runs_is_noticed() -> None:
    async def talk(runner: ProcessRunner) -> None:
        reasons: list[str] = []
        runner.on_broken = reasons.append
        outcome = await ask(runner, do="process")
        assert isinstance(outcome, Answered)
        os.kill(outcome.chunk.extras["process"], signal.SIGKILL)
        await until(lambda: reasons)
        assert "SIGKILL" in reasons[0]

    with_runner(ProcessRunner(recipe()), talk)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("exit", "SystemExit: 4"), ("die", "the policy was not loaded: its process .* was killed by SIGSEGV")],
)
def test_a_process_that_ends_while_it_loads_is_an_error_of_the_start(kind: str, text: str) -> None:
    async def run() -> None:
        runner = ProcessRunner(recipe("load_with_error", kind=kind))
        with pytest.raises(PolicyFailed, match=text):
            await runner.start(lambda _: None)
        await runner.close(PATIENCE_S)

    asyncio.run(run())


def test_a_process_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def run() -> None:
        before = descriptors()
        runner = ProcessRunner(recipe())
        with pytest.raises(FileNotFoundError, match="/nowhere/python"):
            await runner.start(lambda _: None)
        assert runner.abandon().done()
        await runner.close(PATIENCE_S)
        assert descriptors() == before

    asyncio.run(run())


def test_the_servers_loop_lives_while_the_policy_holds_the_interpreter(tmp_path: Path) -> None:
    async def run() -> None:
        runner = ProcessRunner(recipe(marks=tmp_path))
        await runner.start(lambda _: None)
        answer = infer(runner, task(1, do="hold"))
        await mark(tmp_path, "waiting")
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert not answer.done()
        await asyncio.wait_for(runner.abandon(), PATIENCE_S)
        assert isinstance((await answer)[0], PolicyLost)

    asyncio.run(run())


PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.engine.running import ask, infer, recipe, task
from policyserve.engine.isolated.runner import ProcessRunner
async def main():
    runner = ProcessRunner(recipe(marks=Path(sys.argv[1])))
    await runner.start(lambda _: None)
    print((await ask(runner, do="process")).chunk.extras["process"], flush=True)
    infer(runner, task(1, do="hold"))
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def is_alive(number: int) -> bool:
    """Whether a process is there and no zombie, which in a container without an init nobody may reap."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a policy that holds the interpreter outlives its server")
def test_a_process_ends_with_its_server_however_that_ended(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        asyncio.run(mark(tmp_path, "waiting"))
        assert is_alive(child)
        server.kill()
        server.wait()
    asyncio.run(until(lambda: not is_alive(child)))


def test_signals_to_a_terminals_group_are_the_servers_to_answer() -> None:
    async def talk(runner: ProcessRunner) -> None:
        outcome = await ask(runner, do="process")
        assert isinstance(outcome, Answered)
        child = outcome.chunk.extras["process"]
        assert os.getpgid(child) != os.getpgid(0)
        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)
        assert value(await ask(runner, 2.0)) == 2.0

    with_runner(ProcessRunner(recipe()), talk)


def test_what_the_policy_prints_goes_where_the_log_goes(capfd: pytest.CaptureFixture[str]) -> None:
    async def talk(runner: ProcessRunner) -> None:
        await ask(runner, do="print")

    with_runner(ProcessRunner(recipe()), talk)
    out, err = capfd.readouterr()
    assert out == ""
    assert "a line of the policy's" in err


def test_an_answer_that_cannot_leave_the_process_fails_that_request_alone() -> None:
    async def talk(runner: ProcessRunner) -> None:
        bad, good = await infer(runner, task(1, do="odd"), task(2, 2.0))
        assert isinstance(bad, PolicyFailed)
        assert "set cannot go to another process" in str(bad)
        assert value(good) == 2.0

    with_runner(ProcessRunner(recipe()), talk)


def test_a_spec_that_cannot_leave_the_process_is_an_error_of_the_start() -> None:
    async def run() -> None:
        runner = ProcessRunner(recipe("load_secretive"))
        with pytest.raises(PolicyFailed, match="the policy's spec cannot leave its process: object cannot go"):
            await runner.start(lambda _: None)
        await runner.close(PATIENCE_S)

    asyncio.run(run())


def test_an_observation_that_cannot_go_there_fails_its_batch() -> None:
    async def talk(runner: ProcessRunner) -> None:
        bad = await ask(runner, more={1, 2})
        assert isinstance(bad, PolicyFailed)
        assert "set cannot go to another process" in str(bad)
        assert value(await ask(runner, 2.0)) == 2.0

    with_runner(ProcessRunner(recipe()), talk)


def test_a_batch_that_cannot_be_read_there_ends_the_process_also_if_it_comes_ahead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def talk(runner: ProcessRunner) -> None:
        first = infer(runner, task(1, 1.0, "wait"))
        await mark(tmp_path, "waiting")
        monkeypatch.setattr(runner, "_write_task", lambda task: [task.session, None, b"\xc1", None])
        second = infer(runner, task(1, 2.0))
        (tmp_path / "go").touch()
        assert value((await first)[0]) == 1.0
        assert [type(outcome) for outcome in await second] == [PolicyLost]

    with_runner(ProcessRunner(recipe("Preparing", marks=tmp_path)), talk)


# Shared memory


def test_arrays_are_aligned_for_what_computes_on_them() -> None:
    async def talk(runner: ProcessRunner) -> None:
        for _ in range(3):
            assert value(await ask(runner, do="point", other=IMAGE[:99, :99], image=IMAGE)) == 0.0

    with_runner(ProcessRunner(recipe()), talk)


def test_memory_is_used_again_when_nobody_holds_it() -> None:
    async def talk(runner: ProcessRunner) -> None:
        arena = runner._observations  # pyright: ignore[reportPrivateUsage]
        for do in ["echo"] * 50 + ["fail"] * 50:
            await ask(runner, do=do, image=IMAGE)
            assert arena.in_use == 0
        for number in range(5):
            await ask(runner, do="keep", image=IMAGE)
            assert arena.in_use == number + 1

    with_runner(ProcessRunner(recipe()), talk)


def test_memory_of_what_was_prepared_ahead_is_used_again_too() -> None:
    async def talk(runner: ProcessRunner) -> None:
        arena = runner._observations  # pyright: ignore[reportPrivateUsage]
        for do in ["echo", "unprepared", "fail"] * 20:
            batches = [infer(runner, task(1, 0.0, do, image=IMAGE), task(2, 0.0, image=IMAGE)) for _ in range(3)]
            for batch in batches:
                assert value((await batch)[1]) == 0.0
        await ask(runner)  # brings the last ones back
        assert arena.in_use == 0

    with_runner(ProcessRunner(recipe("Preparing")), talk)


def descriptors() -> set[str]:
    """What this process has open, names and all."""
    found: set[str] = set()
    if sys.platform != "linux":
        return found
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:
            continue  # the listing's own
    return {one for one in found if "memfd" in one or "socket" in one or "pipe" in one}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("policy", ["Obedient", "Preparing"])
@pytest.mark.parametrize("end", ["close", "die", "abandon"])
def test_nothing_stays_open_at_its_end(end: str, policy: str) -> None:
    async def run() -> None:
        before = descriptors()
        runner = ProcessRunner(recipe(policy))
        await runner.start(lambda _: None)
        outcome = await ask(runner, do="tell", image=IMAGE, more=IMAGE)
        assert isinstance(outcome, Answered)
        assert descriptors() != before
        if end == "close":
            await runner.close(PATIENCE_S)
        elif end == "die":
            await ask(runner, signal.SIGKILL, "die")
        else:
            await asyncio.wait_for(runner.abandon(), PATIENCE_S)
        np.testing.assert_array_equal(outcome.chunk.extras["seen"], IMAGE)  # what it answered can still be read
        del outcome, runner
        await until(lambda: descriptors() == before)

    asyncio.run(run())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("turns", range(1, 8))
def test_a_start_that_is_cancelled_leaves_nothing_open(turns: int, caplog: pytest.LogCaptureFixture) -> None:
    """After each of the turns of the event loop in which the connections to the child come to be."""

    async def run() -> None:
        before = descriptors()
        runner = ProcessRunner(recipe())
        starting = asyncio.ensure_future(runner.start(lambda _: None))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        await asyncio.wait_for(runner.abandon(), PATIENCE_S)
        del runner, starting
        await until(lambda: gc.collect() is not None and descriptors() == before)

    asyncio.run(run())
    assert "never retrieved" not in caplog.text


def test_a_module_beside_the_program_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "robot_in_a_folder.py").write_text("def make(gain):\n    return lambda x: x * gain\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])

    async def talk(runner: ProcessRunner) -> None:
        (outcome,) = await infer(runner, task(1)._replace(observation=np.array([2.0])))
        assert value(outcome) == 6.0

    with_runner(ProcessRunner(Recipe("robot_in_a_folder:make", {"gain": 3})), talk)


def test_it_runs_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def run() -> None:
        runner = ProcessRunner(recipe())
        await runner.start(lambda _: None)
        assert value(await ask(runner, 2.0, image=IMAGE)) == 2.0
        assert isinstance(await ask(runner, signal.SIGKILL, "die"), PolicyLost)
        await runner.close(PATIENCE_S)

    uvloop.run(run())
