"""What every runner promises, whichever kind it is: one body of tests."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered
from policyserve.core.errors import BadAction, BadObservation, ConfigError, PolicyFailed, PolicyLost, of_policy
from policyserve.core.recipe import Recipe
from policyserve.engine.answering import is_fatal
from policyserve.engine.runner import Runner
from tests.engine.obedient import SPEC
from tests.engine.running import KINDS, PATIENCE_S, ask, infer, mark, recipe, task, until, value, with_runner


class Kind:
    """Makes runners of one kind."""

    def __init__(self, name: str) -> None:
        self.name = name

    def of(self, made: Recipe) -> Runner:
        return KINDS[self.name](made)


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


# Life cycle


def test_starting_tells_stages_and_gives_the_policys_spec(kind: Kind, tmp_path: Path) -> None:
    stages: list[str] = []

    async def run() -> None:
        runner = kind.of(recipe("load", marks=tmp_path))
        assert await runner.start(stages.append) == SPEC
        await runner.close(PATIENCE_S)

    asyncio.run(run())
    assert stages == ["reading 50 %", "warming up, batch 1", "warming up, batch 8"]
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("made", "error", "text"),
    [
        (recipe("load_with_error", kind="config"), ConfigError, "no checkpoint in here"),
        (recipe("load_with_error", kind="value"), ValueError, "no such file"),
        (recipe("load_unwarmable"), PolicyFailed, r"warm-up with zeros failed.*ZeroDivisionError: x is 0"),
        (recipe("load_nothing"), ConfigError, "expected package.module:function, got .*load_nothing"),
        (Recipe("nowhere:make"), ConfigError, "there is no module 'nowhere'"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_a_loader_raises_reaches_who_started_it(kind: Kind, made: Recipe, error: Any, text: str) -> None:
    async def run() -> None:
        runner = kind.of(made)
        with pytest.raises(error, match=f"^{text}"):
            await runner.start(lambda _: None)
        await runner.close(PATIENCE_S)

    asyncio.run(run())


def test_a_runner_that_never_started_closes(kind: Kind) -> None:
    asyncio.run(kind.of(recipe()).close(PATIENCE_S))


# One batch


def test_answers_keep_the_order_of_the_batch(kind: Kind) -> None:
    async def talk(runner: Any) -> None:
        batches = [infer(runner, *(task(number, 8 * batch + number) for number in range(8))) for batch in range(3)]
        assert [value(one) for batch in batches for one in await batch] == list(range(24))

    with_runner(kind.of(recipe()), talk)


def test_times_are_on_the_servers_clock(kind: Kind) -> None:
    import time

    async def talk(runner: Any) -> None:
        before = time.monotonic()
        outcome = await ask(runner)
        assert isinstance(outcome, Answered)
        assert before <= outcome.started_at <= outcome.ended_at <= time.monotonic()

    with_runner(kind.of(recipe()), talk)


@pytest.mark.parametrize("policy", ["Obedient", "Preparing"])
def test_an_observation_is_let_go_of_once_it_is_answered(kind: Kind, policy: str) -> None:
    async def talk(runner: Any) -> None:
        image = np.zeros(100_000, np.uint8)
        is_held = weakref.ref(image)
        asked = infer(runner, task(1, 3.0, image=image))
        del image
        (outcome,) = await asyncio.wait_for(asked, PATIENCE_S)
        assert value(outcome) == 3.0
        await until(lambda: is_held() is None)  # a thread hands its answer over before its call has ended

    with_runner(kind.of(recipe(policy)), talk)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5])
def test_what_a_policy_raises_fails_that_input_alone(kind: Kind, number: int) -> None:
    async def talk(runner: Any) -> None:
        first, bad, last = await infer(runner, task(1, 1), task(2, number, "fail"), task(3, 3))
        assert (value(first), value(last)) == (1, 3)
        assert isinstance(bad, PolicyFailed)
        assert "obedient raised" in str(bad)
        assert bad.__cause__ is not None
        assert value(await ask(runner, 4.0)) == 4.0

    with_runner(kind.of(recipe()), talk)


@pytest.mark.parametrize(
    ("do", "error", "text"),
    [
        ("nan", BadAction, "obedient answered NaN or Inf"),
        ("wide", BadAction, r"answered float32 \(2,\), expected float32 \(1,\)"),
        ("miscount", PolicyFailed, "obedient answered 0 chunks for 1 inputs"),
        ("nothing", PolicyFailed, "obedient answered NoneType for an input"),
        ("error", BadObservation, "x: expected more, got less; try again"),
    ],
)
def test_a_wrong_answer_fails_that_input_alone(kind: Kind, do: str, error: type[Exception], text: str) -> None:
    async def talk(runner: Any) -> None:
        bad, good = await infer(runner, task(1, 1, do), task(2, 2))
        assert type(bad) is error
        with pytest.raises(error, match=text):
            raise bad  # type: ignore[misc]
        assert value(good) == 2

    with_runner(kind.of(recipe()), talk)


def test_an_error_keeps_its_fields(kind: Kind) -> None:
    async def talk(runner: Any) -> None:
        error = await ask(runner, do="error")
        assert isinstance(error, BadObservation)
        assert (error.path, error.expected, error.got, error.hint) == ("x", "more", "less", "try again")
        assert error.__cause__ is None

    with_runner(kind.of(recipe()), talk)


# State


def test_each_session_has_its_own_state_until_it_is_forgotten(kind: Kind) -> None:
    async def talk(runner: Any) -> list[list[float]]:
        seen: list[list[float]] = []
        for sessions in ((1, "b"), (1,), (1, "b")):
            batch = [task(session, do="count") for session in sessions]
            seen.append([value(one) for one in await infer(runner, *batch)])
        runner.forget(1)
        seen.append([value(one) for one in await infer(runner, task(1, do="count"), task("b", do="count"))])
        return seen

    assert with_runner(kind.of(recipe()), talk) == [[1, 1], [2], [3, 2], [1, 3]]


def test_whether_a_chunk_has_state_can_be_seen(kind: Kind) -> None:
    async def talk(runner: Any) -> list[bool]:
        outcomes = [await ask(runner, x, "count") for x in (1, -1, 1)]
        return [isinstance(one, Answered) and one.chunk.state is not None for one in outcomes]

    assert with_runner(kind.of(recipe()), talk) == [True, False, True]


def test_a_request_that_its_session_was_refused_has_changed_nothing(kind: Kind, tmp_path: Path) -> None:
    async def talk(runner: Any) -> list[float]:
        seen = [value(await ask(runner, do="count"))]
        late = infer(runner, task(1, do="count"), task(2, do="count"))
        runner.take_back(1)  # before the answer is here; session 2 is told
        await late
        return [*seen, *[value(await ask(runner, do="count", session=session)) for session in (1, 2)]]

    assert with_runner(kind.of(recipe()), talk) == [1, 2, 2]


# Values


MORE = {
    "texts": ["pick", "place"],
    "nothing": None,
    "yes": True,
    "number": -(2**40),
    "half": 0.5,
    "nested": {"images": {"cam_high": np.arange(24, dtype=np.uint8).reshape(2, 4, 3)}},
    "bytes": b"\0\1",
    "empty": np.zeros((0, 3), np.float64),
    "scalar": np.float32(0.1),
    "zero-d": np.array(7, np.int64),
    "big-endian": np.array([1, 2], ">i4"),
    "bools": np.array([True, False]),
    "umlaut \udcff": "\udcff",
}


def test_observations_and_extras_are_what_they_were_on_the_other_side(kind: Kind) -> None:
    large = {"image": np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)}
    slanted = {"image": large["image"][::2, ::-1], "depth": large["image"][:, :, 0].T.astype(np.float64)}

    async def talk(runner: Any) -> None:
        for more in (MORE, large, slanted):
            outcome = await ask(runner, do="tell", more=more)
            assert isinstance(outcome, Answered), outcome
            assert_same(outcome.chunk.extras["seen"], more)

    with_runner(kind.of(recipe()), talk)


def assert_same(got: Any, sent: Any) -> None:
    assert type(got) is type(sent)
    if isinstance(sent, dict):
        assert list(got) == list(sent)
        for key in sent:
            assert_same(got[key], sent[key])
    elif isinstance(sent, np.ndarray):
        assert got.dtype == sent.dtype
        np.testing.assert_array_equal(got, sent)
    else:
        assert got == sent


def test_a_policy_may_write_into_its_observation_and_keep_it(kind: Kind) -> None:
    async def talk(runner: Any) -> None:
        for number in range(20):
            image = np.full((100, 100), number, np.uint8)
            assert value(await ask(runner, do="keep", image=image)) == 1.0

    with_runner(kind.of(recipe()), talk)


# A policy that prepares


def preparing(kind: Kind, marks: Path) -> Runner:
    return kind.of(recipe("Preparing", marks=marks))


async def running(runner: Any, marks: Path) -> Any:
    """A batch that runs until there is a file `go`."""
    answer = infer(runner, task("first", do="wait"))
    await mark(marks, "waiting")
    return answer


def test_the_next_batch_is_prepared_while_one_runs(kind: Kind, tmp_path: Path) -> None:
    async def talk(runner: Any) -> None:
        first = await running(runner, tmp_path)
        second = infer(runner, task(1, 2.0, "ahead"), task(2, 3.0))
        await mark(tmp_path, "prepared 2")
        await mark(tmp_path, "prepared 3")
        assert not first.done()
        (tmp_path / "go").touch()
        assert [value(one) for one in (*await first, *await second)] == [0.0, 1.0, 3.0]

    with_runner(preparing(kind, tmp_path), talk)


def test_a_batch_that_comes_when_nothing_runs_is_prepared_by_the_thread_that_answers(
    kind: Kind, tmp_path: Path
) -> None:
    async def talk(runner: Any) -> None:
        for number in range(3):
            assert value(await ask(runner, number, "ahead")) == 0.0

    with_runner(preparing(kind, tmp_path), talk)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 7])
def test_what_preparing_raises_fails_that_input_alone(kind: Kind, tmp_path: Path, number: int) -> None:
    async def talk(runner: Any) -> None:
        first = await running(runner, tmp_path)
        second = infer(runner, task(1, 1), task(2, number, "unprepared"), task(3, 3))
        (tmp_path / "go").touch()
        good, bad, last = await second
        assert (value((await first)[0]), value(good), value(last)) == (0, 1, 3)
        assert isinstance(bad, PolicyFailed)
        assert "obedient raised" in str(bad)
        assert isinstance(await ask(runner, number, "unprepared"), PolicyFailed)
        assert value(await ask(runner, 4.0)) == 4.0

    with_runner(preparing(kind, tmp_path), talk)


def test_a_gpu_that_is_poisoned_while_preparing_breaks_the_runner(kind: Kind, tmp_path: Path) -> None:
    async def talk(runner: Any) -> None:
        reasons: list[str] = []
        runner.on_broken = reasons.append
        await running(runner, tmp_path)
        second = infer(runner, task(1, 6, "unprepared"), task(2))
        (tmp_path / "go").touch()
        assert [type(one) for one in await second] == [PolicyLost, PolicyLost]
        assert len(reasons) == 1
        assert "illegal memory access" in reasons[0]

    with_runner(preparing(kind, tmp_path), talk)


def test_a_batch_that_is_prepared_ahead_has_the_state_that_the_one_before_left(kind: Kind, tmp_path: Path) -> None:
    async def talk(runner: Any) -> None:
        first = await running(runner, tmp_path)
        second, third = (infer(runner, task(1, x, "count")) for x in (1.0, 2.0))
        runner.forget(1)
        fourth = infer(runner, task(1, 3.0, "count"))
        await mark(tmp_path, "prepared 1")
        assert not (tmp_path / "prepared 2").exists()  # one batch ahead, and not two
        (tmp_path / "go").touch()
        assert [value((await batch)[0]) for batch in (first, second, third, fourth)] == [0, 1, 2, 1]

    with_runner(preparing(kind, tmp_path), talk)


def test_an_input_that_is_tried_alone_is_prepared_without_its_state_and_answered_with_it(
    kind: Kind, tmp_path: Path
) -> None:
    async def talk(runner: Any) -> None:
        for calls in (1, 2):
            counted, bad = await infer(runner, task(1, do="count"), task(2, do="unprepared"))
            assert isinstance(bad, PolicyFailed)
            assert value(counted) == calls

    with_runner(preparing(kind, tmp_path), talk)


def test_a_runner_whose_policy_never_ends_preparing_can_be_abandoned(kind: Kind, tmp_path: Path) -> None:
    async def run() -> None:
        runner = preparing(kind, tmp_path)
        await runner.start(lambda _: None)
        first = await running(runner, tmp_path)
        infer(runner, task(1, 2.0, "linger"))
        await mark(tmp_path, "lingering")
        (tmp_path / "go").touch()
        assert [value(one) for one in await asyncio.wait_for(first, PATIENCE_S)] == [0.0]
        gone = runner.abandon()
        if kind.name == "process":  # it is killed while it lingers
            await asyncio.wait_for(gone, PATIENCE_S)
        (tmp_path / "linger").touch()
        await asyncio.wait_for(gone, PATIENCE_S)
        assert not (tmp_path / "lingered").exists()
        assert not (tmp_path / "closed").exists()

    asyncio.run(run())


def test_a_policy_is_closed_after_what_it_has_prepared(kind: Kind, tmp_path: Path) -> None:
    async def run() -> None:
        runner = preparing(kind, tmp_path)
        await runner.start(lambda _: None)
        await running(runner, tmp_path)
        second = infer(runner, task(1, 2.0, "linger"))
        await mark(tmp_path, "lingering")
        closing = asyncio.create_task(runner.close(PATIENCE_S))
        (tmp_path / "go").touch()
        (tmp_path / "linger").touch()
        await asyncio.wait_for(closing, PATIENCE_S)
        assert [value(one) for one in await second] == [2.0]
        assert (tmp_path / "closed").exists()

    asyncio.run(run())


def test_a_policy_is_freed_before_its_runner_has_ended(kind: Kind, tmp_path: Path) -> None:
    """By the thread that made it, and not as the interpreter ends, where some frameworks abort."""

    async def run() -> None:
        runner = preparing(kind, tmp_path)
        await runner.start(lambda _: None)
        first = await running(runner, tmp_path)
        second = infer(runner, task(1, 2.0, "ahead"))
        (tmp_path / "go").touch()
        await first
        await second
        await runner.close(PATIENCE_S)
        assert (tmp_path / "freed").exists()

    asyncio.run(run())


# Between batches


def test_a_policy_does_what_can_wait_after_its_answer_and_an_error_ends_it(
    kind: Kind, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def parts() -> int:
        return len(list(tmp_path.glob("part*")))

    def remove_parts() -> None:
        for path in tmp_path.glob("part*"):
            path.unlink()

    async def talk(runner: Any) -> None:
        assert parts() == 0  # nor while it was warmed
        assert value(await ask(runner, 1.0)) == 1.0
        await until(lambda: parts() == 3)
        remove_parts()
        assert value(await ask(runner, 2.0)) == 2.0  # it still answers, and is not asked to go on
        assert value(await ask(runner, 3.0)) == 3.0
        assert parts() == 0

    with_runner(kind.of(recipe("load_settling", marks=tmp_path)), talk)
    told = caplog.text + capfd.readouterr().err
    assert "obedient: what it does between batches failed, and is not tried again: ValueError: the last part" in told


# The end


def test_a_poisoned_gpu_breaks_the_runner_and_its_batch_may_be_asked_again(kind: Kind) -> None:
    async def talk(runner: Any) -> None:
        reasons: list[str] = []
        runner.on_broken = reasons.append
        outcomes = await infer(runner, task(1, 6, "fail"), task(2))
        assert [type(one) for one in outcomes] == [PolicyLost, PolicyLost]
        assert all("illegal memory access" in str(one) for one in outcomes)
        assert len(reasons) == 1
        assert "illegal memory access" in reasons[0]

    with_runner(kind.of(recipe()), talk)


def test_three_batches_in_a_row_that_fail_on_the_gpu_break_the_runner_whatever_they_say(kind: Kind) -> None:
    async def talk(runner: Any) -> None:
        reasons: list[str] = []
        runner.on_broken = reasons.append
        for fails in (2, 2):
            for _ in range(fails):
                assert type(await ask(runner, 8, "fail")) is PolicyFailed
            assert value(await ask(runner, 2.0)) == 2.0  # one that succeeds, and they are counted anew
        for _ in range(2):
            assert type(await ask(runner, 8, "fail")) is PolicyFailed
        assert type(await ask(runner, 0, "fail")) is PolicyFailed  # ValueError: not the GPU's, and no success
        assert reasons == []
        assert type(await ask(runner, 8, "fail")) is PolicyLost
        assert len(reasons) == 1
        assert "a new kind of error" in reasons[0]

    with_runner(kind.of(recipe()), talk)


@pytest.mark.parametrize(
    ("text", "is_it"),
    [
        ("CUDA error: the launch timed out and was terminated\nCUDA kernel errors might be ...", True),
        ("CUDA error: unknown error", True),
        ("CUDA driver error: unknown error", True),
        ("CUDA error: uncorrectable NVLink error detected during the execution", True),
        ("CUDA error: operation not supported on global/shared address space", True),
        ("CUDA error: invalid device context", True),
        ("CUDA error: no CUDA-capable device is detected", True),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", True),
        ("Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost. Reboot the system", True),
        ("captures_underway.empty() INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp:2890", True),
        ("INTERNAL: CUDA_ERROR_LAUNCH_TIMEOUT: the launch timed out and was terminated", True),
        ("INTERNAL: CUDA_ERROR_UNKNOWN: unknown error", True),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", False),
        ("CUDA error: out of memory", False),
        ("an unknown error in the configuration", False),
        ("expected scalar type Half but found Float", False),
    ],
)
def test_the_words_of_a_lost_gpu_are_known(text: str, is_it: bool) -> None:
    assert is_fatal(of_policy(RuntimeError(text), "a policy raised")) is is_it
    assert not is_fatal(of_policy(ValueError(text), "a policy raised"))


def test_a_clients_words_in_a_policys_error_break_no_runner(kind: Kind) -> None:
    async def talk(runner: Any) -> None:
        reasons: list[str] = []
        runner.on_broken = reasons.append
        assert isinstance(await ask(runner, do="quote"), PolicyFailed)
        assert value(await ask(runner, 3.0)) == 3.0
        assert reasons == []

    with_runner(kind.of(recipe()), talk)


def test_running_out_of_gpu_memory_fails_that_request_alone(kind: Kind) -> None:
    async def talk(runner: Any) -> None:
        reasons: list[str] = []
        runner.on_broken = reasons.append
        assert isinstance(await ask(runner, 7, "fail"), PolicyFailed)
        assert value(await ask(runner, 3.0)) == 3.0
        assert reasons == []

    with_runner(kind.of(recipe()), talk)


def test_the_event_loop_lives_while_the_policy_works(kind: Kind, tmp_path: Path) -> None:
    async def talk(runner: Any) -> None:
        answer = infer(runner, task(1, 3.0, "wait"))
        await mark(tmp_path, "waiting")
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert not answer.done()
        (tmp_path / "go").touch()
        assert [value(one) for one in await answer] == [3.0]

    with_runner(kind.of(recipe(marks=tmp_path)), talk)


def test_what_is_abandoned_answers_nobody_and_is_not_closed(kind: Kind, tmp_path: Path) -> None:
    async def run() -> None:
        runner = kind.of(recipe(marks=tmp_path))
        await runner.start(lambda _: None)
        broken: list[str] = []
        runner.on_broken = broken.append
        infer(runner, task(1, 3.0, "wait"))
        await mark(tmp_path, "waiting")
        gone = runner.abandon()
        (tmp_path / "go").touch()
        await asyncio.wait_for(gone, PATIENCE_S)
        assert broken == []
        assert not (tmp_path / "closed").exists()

    asyncio.run(run())


def test_close_gives_up_on_a_policy_that_hangs(kind: Kind, tmp_path: Path) -> None:
    async def run() -> None:
        runner = kind.of(recipe(marks=tmp_path))
        await runner.start(lambda _: None)
        infer(runner, task(1, 3.0, "wait"))
        await mark(tmp_path, "waiting")
        await asyncio.wait_for(runner.close(0.01), PATIENCE_S)
        assert not (tmp_path / "closed").exists()
        (tmp_path / "go").touch()

    asyncio.run(run())


def test_a_policy_that_takes_its_answers_from_a_generator_or_tries_to_empty_its_batch_harms_nobody(kind: Kind) -> None:
    async def talk(runner: Any) -> None:
        assert [value(one) for one in await infer(runner, task(1, 1), task(2, 2))] == [1, 2]
        first, second = await infer(runner, task(1, 1, "empty"), task(2, 2))
        assert isinstance(first, PolicyFailed)
        assert value(second) == 2

    with_runner(kind.of(recipe("Generating")), talk)
