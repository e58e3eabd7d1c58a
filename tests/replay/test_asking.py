"""A recording is asked again of a real server: what was asked, in which order, and what becomes of refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import ActionChunk, ArraySpec, PolicySpec
from policyserve.core.errors import ConfigError, ConnectionLost, Overloaded, PolicyserveError
from policyserve.core.policy import FunctionPolicy, PolicyInput, as_policy
from policyserve.policies.fakes import EchoPolicy
from policyserve.recordings.reading import open_recording
from policyserve.replay.asking import GIVES_UP_AFTER, Target, ask_again
from policyserve.replay.gathered import Gathered
from tests.doctor.sick import closed_port
from tests.replay.recorded import PERIOD, SPEC, record, toy, walk
from tests.server.live import Live, serving

FORGOT = "the server closed session 1 at a refusal: the policy forgot what came before"
DIALECTS = ("openpi", "wall_x", "vibe_rl")


def replayed(path: Path, live: Live, *, keeps_pauses: bool = False, spec: PolicySpec | None = None) -> Gathered:
    gathered = Gathered()
    target = Target(f"ws://127.0.0.1:{live.port}", spec=spec)
    recording = open_recording(path)
    asyncio.run(ask_again(recording, target, gathered, lambda _: None, keeps_pauses=keeps_pauses))
    return gathered


class Listening(EchoPolicy):
    """Keeps what each session asked, in the order of their beginnings; answers how many requests it had before."""

    def __init__(self) -> None:
        super().__init__(3)
        self.asked: list[list[float]] = []

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [self._answer(one) for one in batch]

    def _answer(self, one: PolicyInput) -> ActionChunk:
        mine = one.state
        if mine is None:
            mine = []
            self.asked.append(mine)
        mine.append(float(one.observation["obs"][0]))
        return ActionChunk(one.observation["obs"] + len(mine), mine)


class Stumbling(EchoPolicy):
    """Raises, or gives an error, for what a function of its observation says."""

    def __init__(self, error_for: Callable[[Any], PolicyserveError | None]) -> None:
        super().__init__(3)
        self._error_for = error_for

    def infer(self, batch: Sequence[PolicyInput]) -> list[Any]:
        return [self._error_for(one.observation["obs"]) or ActionChunk(one.observation["obs"]) for one in batch]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_policy_answers_the_same_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    path = record(tmp_path / "one.mcap", toy(), [walk(12), walk(7, 1)], dialect)
    with serving(toy()) as live:
        gathered = replayed(path, live)
    verdict = gathered.compared(0.0)
    assert (verdict.word, verdict.comparison.requests, gathered.sessions) == ("same", 19, 2)
    assert [(pair.session, pair.step) for pair in gathered.pairs[10:14]] == [(1, 11), (1, 12), (2, 1), (2, 2)]


def test_another_checkpoint_is_beyond_the_tolerance(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", toy(), [walk(12)])
    with serving(toy(1.001)) as live:
        gathered = replayed(path, live)
    assert gathered.compared(None).word == "beyond"
    assert gathered.draws_noise is False
    assert gathered.compared(1.0).word == "within"


def test_each_session_begins_with_an_empty_memory_and_all_come_in_order(tmp_path: Path) -> None:
    sessions = [walk(5), walk(4, 1), walk(3, 2)]
    path = record(tmp_path / "one.mcap", Listening(), sessions)
    policy = Listening()
    with serving(policy, isolate="thread") as live:
        gathered = replayed(path, live)
    assert policy.asked == [[float(one["obs"][0]) for one in session] for session in sessions]
    assert gathered.compared(0.0).word == "same"


class Summing:
    """One memory for all sessions, which is told when a session begins."""

    def __init__(self) -> None:
        self.total = np.zeros(2, np.float32)

    def reset(self) -> None:
        self.total = np.zeros(2, np.float32)

    def infer(self, observation: Mapping[str, Any]) -> Any:
        self.total = self.total + observation["obs"][:2]
        return self.total


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_memory_is_forgotten_where_a_session_begins(tmp_path: Path, dialect: str) -> None:
    sessions = [walk(3, seed) for seed in range(20)]
    path = record(tmp_path / "one.mcap", as_policy(Summing(), SPEC), sessions, dialect)
    with serving(as_policy(Summing(), SPEC), isolate="thread") as live:
        gathered = replayed(path, live)
    assert gathered.compared(0.0).word == "same"


def test_the_recorded_pauses_are_kept(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", toy(), [walk(6)])
    with serving(toy()) as live:
        before = time.monotonic()
        gathered = replayed(path, live, keeps_pauses=True)
    assert time.monotonic() - before >= 5 * PERIOD / 1e9 * 0.99  # a bound from below: no machine is too slow for it
    assert gathered.compared(0.0).word == "same"


def test_a_policy_of_another_robot_is_told_by_its_keys_before_it_is_asked(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", toy(), [walk(3)])
    other = PolicySpec("arm", {"state": ArraySpec((7,))}, ArraySpec((7,)))
    policy = FunctionPolicy(lambda observation: observation["state"], other)
    with serving(policy) as live, pytest.raises(ConfigError) as told:
        replayed(path, live)
    assert "state: expected float32 (7,), got no such key" in str(told.value)
    assert "actions: recorded float32 (2,), the policy answers float32 (7,)" in str(told.value)
    assert "one.mcap" in str(told.value)


def test_a_key_that_the_policy_does_not_have_is_noted(tmp_path: Path) -> None:
    wide = PolicySpec("toy", {**dict(SPEC.leaves), "extra": ArraySpec((1,), optional=True)}, SPEC.action)
    observations = [{**one, "extra": np.zeros(1, np.float32)} for one in walk(2)]
    path = record(tmp_path / "one.mcap", toy(spec=wide), [observations])
    with serving(toy()) as live:
        gathered = replayed(path, live)
    assert gathered.notes == ["the policy has no extra: it does not see what was sent so"]
    assert gathered.compared(0.0).word == "same"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_refusal_is_told_by_its_code_and_the_others_go_on(tmp_path: Path, dialect: str) -> None:
    observations = walk(6)
    path = record(tmp_path / "one.mcap", EchoPolicy(3), [observations, observations[:2]], dialect)
    third = float(observations[2]["obs"][0])
    policy = Stumbling(lambda obs: Overloaded("full") if float(obs[0]) == third else None)
    with serving(policy, isolate="thread") as live:
        gathered = replayed(path, live)
    (refused,) = gathered.refused
    assert (refused.session, refused.step, refused.code) == (1, 3, "overloaded")
    assert refused.text.startswith("full")
    assert len(gathered.pairs) == 7
    assert gathered.notes == [FORGOT] * (dialect == "vibe_rl")  # which has no message for errors
    assert gathered.compared(0.0).word == "incomplete"


def test_a_server_that_refuses_all_is_asked_no_longer(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", EchoPolicy(3), [walk(GIVES_UP_AFTER + 10)])
    with serving(Stumbling(lambda _: Overloaded("full")), isolate="thread") as live:
        gathered = replayed(path, live)
    assert len(gathered.refused) == GIVES_UP_AFTER
    assert gathered.stopped == f"{GIVES_UP_AFTER} requests in a row were refused"
    assert gathered.compared(None).word == "nothing"


def test_what_was_refused_then_is_asked_and_not_compared(tmp_path: Path) -> None:
    observations = walk(4)
    second = float(observations[1]["obs"][0])
    refusing = Stumbling(lambda obs: Overloaded("full") if float(obs[0]) == second else None)
    path = record(tmp_path / "one.mcap", refusing, [observations])
    with serving(EchoPolicy(3)) as live:
        gathered = replayed(path, live)
    assert (len(gathered.pairs), gathered.without_actions, gathered.refused) == (3, 1, [])
    assert gathered.compared(0.0).word == "same"


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    from policyserve.recordings.file import RecordingFile
    from policyserve.recordings.layout import Opened

    file = RecordingFile(tmp_path / "bad.mcap")
    file.open_session(Opened(1, "local", "openpi", 1.0, is_continued=True))
    file.request(1, 1, b"\xc1 no MessagePack", 1)
    file.refuse(1, 1, "bad_frame", "no map", 2)
    file.close()
    with serving(toy()) as live:
        gathered = replayed(file.path, live)
    assert (gathered.requests, gathered.unreadable, gathered.pairs) == (1, 1, [])
    assert "session 1 began in an earlier file" in gathered.notes[0]
    assert gathered.compared(None).word == "nothing"


def test_nobody_who_answers_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", toy(), [walk(3)])
    target = Target(f"ws://127.0.0.1:{closed_port()}")
    with pytest.raises(ConnectionLost, match="refused"):
        asyncio.run(ask_again(open_recording(path), target, Gathered(), lambda _: None))


# Noise


FLOW = PolicySpec("flow", {"obs": ArraySpec((3,)), "noise": ArraySpec((2,), optional=True)}, ArraySpec((2,)))


class Sampling:
    """Adds noise, the observation's own or one that it draws; `tells` says which in the answer."""

    spec = FLOW

    def __init__(self, *, seed: int, tells: bool) -> None:
        self._random = np.random.default_rng(seed)
        self._tells = tells

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [self._answer(one.observation) for one in batch]

    def _answer(self, observation: Mapping[str, Any]) -> ActionChunk:
        noise = observation.get("noise")
        if noise is None:
            noise = self._random.normal(size=2).astype(np.float32)
        actions = observation["obs"][:2] + noise
        return ActionChunk(actions, extras={"noise": noise}) if self._tells else ActionChunk(actions)

    def close(self) -> None:
        """Nothing to release."""


def test_noise_that_the_answer_tells_is_repeated(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", Sampling(seed=1, tells=True), [walk(5), walk(3, 1)])
    with serving(Sampling(seed=2, tells=True)) as live:
        gathered = replayed(path, live)
    assert gathered.compared(0.0).word == "same"
    assert gathered.repeated == {"noise": 8}


def test_noise_that_nobody_tells_is_found_out_and_said(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", Sampling(seed=1, tells=False), [walk(5)])
    with serving(Sampling(seed=2, tells=False)) as live:
        gathered = replayed(path, live)
    assert gathered.draws_noise is True
    assert gathered.compared(None).status == 1
