"""What a policy's process has started ends with it, however either ended; and what it cannot do to its server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered
from policyserve.core.recipe import Recipe
from policyserve.engine.isolated import child
from policyserve.engine.isolated.runner import ProcessRunner
from policyserve.server import keys
from tests.engine.isolated.offspring import WAYS
from tests.engine.isolated.test_runner import is_alive
from tests.engine.running import PATIENCE_S, ask, infer, mark, task, until, value, with_runner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a session of its own is out of reach")

IMAGE = np.arange(100_000, dtype=np.uint8)


def parental(marks: Path | None = None) -> ProcessRunner:
    return ProcessRunner(Recipe("tests.engine.isolated.offspring:make", {"marks": marks}))


async def extras(runner: Any, do: str, **more: Any) -> Any:
    outcome = await ask(runner, do=do, **more)
    assert isinstance(outcome, Answered), outcome
    return outcome.chunk.extras


async def until_gone(numbers: Sequence[int]) -> None:
    assert len(numbers) == 2 * len(WAYS) + 1
    try:
        await until(lambda: not any(map(is_alive, numbers)))
    finally:
        for number in filter(is_alive, numbers):  # a test that fails leaves none of them behind
            os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize("end", ["close", "abandon", "SIGKILL from outside"])
def test_what_a_policy_started_ends_with_it(end: str) -> None:
    async def run() -> None:
        runner = parental()
        await runner.start(lambda _: None)
        numbers = (await extras(runner, "start"))["numbers"]
        assert all(map(is_alive, numbers))
        if end == "close":
            await runner.close(PATIENCE_S)
        elif end == "abandon":
            await asyncio.wait_for(runner.abandon(), PATIENCE_S)
        else:
            os.kill((await extras(runner, "process"))["process"], signal.SIGKILL)
        await until_gone(numbers)
        await runner.close(PATIENCE_S)

    asyncio.run(run())


@pytest.mark.parametrize("number", [0, signal.SIGKILL, signal.SIGSEGV])
def test_what_a_policy_started_ends_with_it_also_if_it_dies(number: int, tmp_path: Path) -> None:
    async def talk(runner: ProcessRunner) -> None:
        await ask(runner, number, "start_and_die")
        await until_gone([int(one) for one in (tmp_path / "numbers").read_text().split()])

    with_runner(parental(tmp_path), talk)


PROGRAM = """
import asyncio
from tests.engine.isolated.test_keeper import extras, parental
async def main():
    runner = parental()
    await runner.start(lambda _: None)
    print(*(await extras(runner, "start"))["numbers"], flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def test_what_a_policy_started_ends_with_a_server_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        numbers = [int(one) for one in server.stdout.readline().split()]
        assert all(map(is_alive, numbers))
        server.kill()
    asyncio.run(until_gone(numbers))


def test_a_policy_that_stopped_its_whole_group_is_ended_all_the_same(tmp_path: Path) -> None:
    async def talk(runner: ProcessRunner) -> None:
        infer(runner, task(1, do="stop_all"))
        await mark(tmp_path, "stopping")
        await asyncio.wait_for(runner.abandon(), PATIENCE_S)

    with_runner(parental(tmp_path), talk)


def test_a_keeper_that_does_not_answer_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_LAST_RESORT_S", 0.01)

    async def talk(runner: ProcessRunner) -> None:
        infer(runner, task(1, do="stop_all"))
        await mark(tmp_path, "stopping")
        monkeypatch.setattr(child.signal, "SIGCONT", signal.SIGWINCH)  # which wakes nobody up
        await asyncio.wait_for(runner.abandon(), PATIENCE_S)

    with_runner(parental(tmp_path), talk)


def parent_of(number: int) -> tuple[int, str]:
    """The process id and the name of its parent."""
    parent = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    return parent, Path(f"/proc/{parent}/comm").read_text().strip()


def test_a_keeper_that_is_killed_takes_the_policys_process_with_it() -> None:
    async def talk(runner: ProcessRunner) -> None:
        number = (await extras(runner, "process"))["process"]
        reasons: list[str] = []
        runner.on_broken = reasons.append
        keeper, name = parent_of(number)
        assert name == "policy-keeper"
        os.kill(keeper, signal.SIGKILL)
        await until(lambda: reasons and not is_alive(number))

    with_runner(parental(), talk)


def test_signals_to_the_policys_group_end_nothing() -> None:
    async def talk(runner: ProcessRunner) -> None:
        assert value(await ask(runner, 3.0, "signal_all")) == 3.0
        assert value(await ask(runner, 4.0)) == 4.0

    with_runner(parental(), talk)


def test_the_error_names_the_policys_own_process() -> None:
    async def talk(runner: ProcessRunner) -> None:
        reasons: list[str] = []
        runner.on_broken = reasons.append
        number = (await extras(runner, "process"))["process"]
        os.kill(number, signal.SIGKILL)
        await until(lambda: reasons)
        assert reasons[0].startswith(f"its process {number} was killed by SIGKILL")

    with_runner(parental(), talk)


def test_a_policy_cannot_cut_off_the_memory_that_its_server_reads() -> None:
    async def talk(runner: ProcessRunner) -> None:
        kept = (await extras(runner, "tell", image=IMAGE, more=IMAGE))["seen"]
        told = await extras(runner, "truncate", image=IMAGE)
        assert told["tried"] == told["refused"] >= 4  # two memories, two sizes
        np.testing.assert_array_equal(kept, IMAGE)  # where it had been cut off, this would end the process
        np.testing.assert_array_equal((await extras(runner, "tell", image=IMAGE, more=IMAGE))["seen"], IMAGE)

    with_runner(parental(), talk)


def test_a_policys_process_does_not_inherit_the_servers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.VARIABLE, "robot-7:not-a-real-key-51")
    monkeypatch.setenv("KEPT", "as-it-is")

    async def talk(runner: ProcessRunner) -> None:
        variables = (await extras(runner, "variables"))["variables"]
        assert "not-a-real-key" not in variables
        assert keys.VARIABLE not in variables
        assert "KEPT=as-it-is" in variables

    with_runner(parental(), talk)
