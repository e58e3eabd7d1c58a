"""server.swap(): another policy takes over, by Python."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from policyserve import Client, PolicyServer
from policyserve.bench.episodes import Plan, Target, play
from policyserve.bench.machine import this_machine
from policyserve.bench.scores import Scores, as_json, table
from policyserve.core.errors import ConfigError
from policyserve.core.recipe import Recipe
from policyserve.engine.ready import ReadyPolicy
from policyserve.engine.reloading import ReloadingEngine
from policyserve.engine.swaps import Swap
from policyserve.policies.vibe_rl import demo_directory
from policyserve.policies.vibe_rl.run_adapter import RunFlags
from policyserve.server.exchange import swapping, title_of
from policyserve.server.offers import local_engine
from policyserve.server.server import Server
from tests.policies.frameworks import import_or_skip
from tests.server.exchanging import CONFIG, Numbered, numbered
from tests.server.live import running


def ask(client: Client) -> list[float]:
    return np.ravel(client.infer({"x": np.zeros(1, np.float32)}).actions).tolist()


def recipe(number: int) -> Recipe:
    return Recipe("tests.server.exchanging:Numbered", {"number": number})


def test_a_server_exchanges_its_policy_and_returns_to_the_one_before() -> None:
    server = Server(recipe(1), CONFIG)
    with running(server) as live, Client(live.url("/openpi")) as client:
        live.ready()
        assert ask(client) == [1, 1, 0]
        swapped = live.finish(server.swap(recipe(2), title="the second"))
        assert (swapped.title, swapped.version) == ("the second", 2)
        assert ask(client) == [2, 1, 0]
        swapped = live.finish(server.swap_back(how=Swap(unload_first=True)))
        assert (swapped.title, swapped.version) == ("numbered 1", 3)
        assert ask(client) == [1, 1, 0]
        with pytest.raises(ConfigError, match="when: expected one of now, next-session"):
            live.finish(server.swap(recipe(2), when="later"))  # pyright: ignore[reportArgumentType]


def test_one_of_several_is_exchanged_by_its_name() -> None:
    server = Server({"pick": recipe(1), "place": recipe(2)}, CONFIG)
    with running(server) as live, Client(live.url("/pick")) as pick, Client(live.url("/place")) as place:
        live.ready()
        assert (ask(pick)[0], ask(place)[0]) == (1, 2)
        live.finish(server.swap(recipe(3), "place"))
        assert (ask(pick), ask(place)) == ([1, 2, 0], [3, 1, 0])
        with pytest.raises(ConfigError, match="no policy is named 'plaice' "):
            live.finish(server.swap(recipe(3), "plaice"))


def test_one_that_could_not_be_loaded_is_exchanged_for_one_that_can() -> None:
    server = Server({"pick": recipe(1), "place": Recipe("tests.server.exchanging:Nothing")}, CONFIG)
    with running(server) as live:
        live.ready()
        live.until(lambda server: server.catalogue.named("place").failure is not None)
        live.finish(server.swap(recipe(3), "place"))
        with Client(live.url("/place")) as place:
            assert ask(place)[0] == 3


def test_a_program_hands_over_another_object() -> None:
    server = PolicyServer(lambda observation: np.full(2, 1.0), config=CONFIG)
    with running(server) as live, Client(live.url("/openpi")) as client:
        live.ready()
        assert ask(client) == [1, 1]
        live.finish(server.swap(lambda observation: np.full(2, 2.0)))
        assert ask(client) == [2, 2]
        with pytest.raises(ConfigError, match="was an object of the program's, which is closed"):
            live.finish(server.swap_back())


def test_an_engine_of_ones_own_takes_no_other_policy() -> None:
    engine = local_engine(recipe(1), CONFIG)
    with pytest.raises(ConfigError, match="the arm cannot be exchanged: its requests go to a LocalEngine"):
        swapping(engine, "the arm")


def test_an_engine_whose_policy_another_exchanges_says_how() -> None:
    engine = ReloadingEngine(lambda: local_engine(recipe(1), CONFIG))
    with pytest.raises(ConfigError, match=r"the arm is not exchanged here: its code is loaded anew .* \(--reload\)"):
        swapping(engine, "the arm")


def test_what_nobody_has_named_is_called_by_what_loads_it() -> None:
    def load(on_stage: Any) -> Any: ...

    assert title_of(ReadyPolicy(Numbered(7))) == "numbered 7"
    assert title_of(recipe(1)) == "tests.server.exchanging:Numbered"
    assert title_of(load) == "load"


def test_a_server_stops_in_the_middle_of_a_swap() -> None:
    async def run() -> None:
        may_load = threading.Event()
        server = Server(recipe(1), CONFIG)
        async with server:
            await server.ready()
            served = swapping(server.engine, "it")
            swap = asyncio.ensure_future(served.swap(numbered(2, may_load=may_load)))
            while "reading weights" not in served.swapping:  # noqa: ASYNC110 - another thread
                await asyncio.sleep(0.002)
        may_load.set()
        with pytest.raises(ConfigError, match="the server is stopping"):
            await swap

    asyncio.run(run())


def test_an_evaluation_in_the_middle_of_a_swap_shows_both_versions() -> None:
    import_or_skip("gymnasium")
    demo = Recipe(
        "policyserve.policies.vibe_rl.run_adapter:load_run",
        {"flags": RunFlags(), "directory": demo_directory("cartpole_ppo") / "checkpoints"},
    )
    scores, is_swapped = Scores(), threading.Event()

    async def evaluate(url: str) -> None:
        target = Target(url, "openpi")
        await play(target, Plan("CartPole-v1", episodes=4, sessions=2), scores, lambda _: ask_for_the_swap())

    def ask_for_the_swap() -> None:
        if len(scores.round_trips_ms) == 100 and not is_swapped.is_set():
            is_swapped.set()
            live.finish(live.server.swap(demo))

    with running(Server(demo, CONFIG)) as live:
        live.ready()
        asyncio.run(evaluate(live.url("/openpi?policy_version=true")))
    told = table("CartPole-v1", [], scores)
    assert scores.versions.keys() == {1, 2}
    assert sum(scores.versions.values()) == len(scores.round_trips_ms)
    assert f"versions     1: {scores.versions[1]} answers, 2: {scores.versions[2]} answers" in told
    assert [episode.total for episode in scores.episodes] == [500.0] * 4
    assert as_json("CartPole-v1", [], scores, this_machine())["policy_versions"].keys() == {"1", "2"}
