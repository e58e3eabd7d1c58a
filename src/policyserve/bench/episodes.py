"""Plays episodes with a served policy: observe, ask the server, act."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyserve.bench.environments import Environment
from policyserve.bench.in_real_time import RealtimePlan, play_in_real_time
from policyserve.bench.scores import Episode, Scores
from policyserve.bench.video import Film
from policyserve.client.aio import AsyncClient
from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError, ConnectionLost, PolicyFailed, RemoteError
from policyserve.core.messages import VERSION_KEY, Reply

_USUAL_KEY = "obs"
_NUMBERS = np.dtype(np.float32)

OnStep = Callable[[Scores], None]  # told of what there is so far, after every request


@dataclass(frozen=True)
class Target:
    """A server to ask; api_key: None where its URL has one, or none is needed."""

    url: str = field(repr=False)
    dialect: str
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Plan:
    """Which episodes to play. Episode i starts from seed + i; sessions: how many play at the same time.

    obs_key: the observation's; None: the only one that the policy asks for, where it says so, else `obs`. realtime: how
    the environment goes on while the policy is asked; None: it waits.
    """

    env_id: str
    episodes: int
    seed: int = 0
    sessions: int = 8
    timeout_s: float = 60.0
    obs_key: str | None = None
    realtime: RealtimePlan | None = None


async def play(
    target: Target, plan: Plan, scores: Scores, on_step: OnStep, film: Film | None = None, filmed: int = 0
) -> None:
    """Play all episodes of a plan into `scores`, which has what there is at any time.

    The first `filmed` are played before the others and one by one: drawing would add to their round trips.
    Raises ConfigError for an environment or actions that do not fit, and what asking the server raises.
    """
    started_at = time.monotonic()
    seeds = iter(range(plan.seed, plan.seed + plan.episodes))

    def one_step(scores: Scores) -> None:
        scores.seconds = time.monotonic() - started_at
        on_step(scores)

    if film is not None:
        first = (next(seeds) for _ in range(min(filmed, plan.episodes)))
        await _Player(target, plan, scores, one_step, film).play_episodes(first)
    count = min(plan.sessions, plan.episodes - len(scores.episodes))
    is_answered = asyncio.Event()  # what is refused, or fails, does so in one session and not in all

    async def follow() -> None:
        await is_answered.wait()
        await _Player(target, plan, scores, one_step).play_episodes(seeds)

    def first_step(scores: Scores) -> None:
        is_answered.set()
        one_step(scores)

    leading = [_Player(target, plan, scores, first_step).play_episodes(seeds)] if count else []
    tasks = [asyncio.ensure_future(work) for work in (*leading, *(follow() for _ in range(count - 1)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class _Player:
    """One environment, and a session for each of its episodes."""

    target: Target
    plan: Plan
    scores: Scores
    on_step: OnStep
    film: Film | None = None

    async def play_episodes(self, seeds: Iterator[int]) -> None:
        environment = Environment(self.plan.env_id, draws=self.film is not None)
        try:
            for seed in seeds:
                async with AsyncClient(
                    self.target.url,
                    dialect=self.target.dialect,
                    api_key=self.target.api_key,
                    timeout_s=self.plan.timeout_s,
                    retry_for_s=0,
                ) as client:
                    await self._play(client, environment, seed)
        finally:
            environment.close()

    async def _play(self, client: AsyncClient, environment: Environment, seed: int) -> None:
        await client.connect()
        key = self.plan.obs_key or _key_asked_for(client.metadata)
        types = _types_asked_for(client.metadata)

        def look(observation: Any) -> Mapping[str, Any]:
            self._show(environment)
            return observed(observation, key, environment.env_id, types)

        async def ask(observation: Mapping[str, Any]) -> Reply:
            return await self._ask(client, observation)

        if self.plan.realtime is None:
            total, steps = await _play_waiting(ask, look, environment, seed)
        else:
            how = self.plan.realtime
            total, steps = await play_in_real_time(ask, look, environment, seed, how, client.metadata, self.scores)
        self.scores.episodes.append(Episode(seed, total, steps))
        self.on_step(self.scores)

    async def _ask(self, client: AsyncClient, observation: Mapping[str, Any]) -> Reply:
        asked_at = time.perf_counter()
        try:
            reply = await client.infer(observation)
        except RemoteError as error:
            is_bare = self.target.dialect == "vibe_rl" and list(observation) == [_USUAL_KEY]
            raise _explained(error, self.plan.env_id, observation, is_bare) from error
        self.scores.round_trips_ms.append((time.perf_counter() - asked_at) * 1e3)
        if isinstance(version := reply.fields.get(VERSION_KEY), int):
            self.scores.versions[version] += 1
        self.on_step(self.scores)
        return reply

    def _show(self, environment: Environment) -> None:
        if self.film is not None:
            self.film.add(environment.frame())


async def _play_waiting(
    ask: Callable[[Mapping[str, Any]], Awaitable[Reply]],
    look: Callable[[Any], Mapping[str, Any]],
    environment: Environment,
    seed: int,
) -> tuple[float, int]:
    """Play an episode whose environment waits for each answer, and acts all of it; returns the return and the steps."""
    seen = look(environment.reset(seed))
    total, steps, over = 0.0, 0, False
    while not over:
        for action in actions_of(await ask(seen), environment):
            observation, reward, over = environment.step(action)
            seen = look(observation)
            total, steps = total + reward, steps + 1
            if over:
                break
    return total, steps


def key_of(observation: Mapping[str, Any]) -> str:
    """The only key of a spec's observation; `obs` where there are none or several."""
    return next(iter(observation)) if len(observation) == 1 else _USUAL_KEY


def observed(
    observation: Any, key: str, env_id: str, types: Mapping[str, np.dtype[Any]] | None = None
) -> dict[str, Any]:
    """What an environment shows, as a policy is sent it: numbers as float32, pictures as they are.

    A map keeps its own keys, those of inner ones joined by `/`. types: of numbers that the policy takes as another type
    than float32. Raises ConfigError for anything else.
    """
    types = types or {}
    shown = _leaves(observation) if isinstance(observation, Mapping) else [(key, observation)]
    return {path: _sendable(value, env_id, types.get(path, _NUMBERS)) for path, value in shown}


def actions_of(reply: Reply, environment: Environment) -> list[Any]:
    """The steps of a reply, one or a chunk of them, as the environment takes them; raises ConfigError otherwise."""
    space, steps = environment.actions, reply.actions
    if space.shape is None:
        raise ConfigError(f"{environment.env_id} acts by {space}; expected an array of numbers, or one number")
    whose = f"{environment.env_id}'s action is {space}, the policy answers"
    if steps.ndim == len(space.shape):
        steps = steps[None]
    if steps.shape[1:] != space.shape:
        raise ConfigError(f"{whose} {describe(reply.actions.dtype, reply.actions.shape)}")
    if space.shape:
        return [np.asarray(step, space.dtype) for step in steps]
    for step in steps:
        if step != int(step) or not space.contains(int(step)):
            raise ConfigError(f"{whose} {step}")
    return [int(step) for step in steps]


def _key_asked_for(metadata: Mapping[str, Any]) -> str:
    """The key that a server of ours asks for in its greeting."""
    described = _described(metadata)
    return _USUAL_KEY if described is None else key_of(described)


def _types_asked_for(metadata: Mapping[str, Any]) -> dict[str, np.dtype[Any]]:
    """The types of numbers by the greeting, where they are floats: float64, say."""
    types: dict[str, np.dtype[Any]] = {}
    for path, leaf in (_described(metadata) or {}).items():
        told = leaf.get("dtype") if isinstance(leaf, Mapping) else None
        if told in ("float16", "float64"):
            types[path] = np.dtype(told)
    return types


def _described(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    spec = metadata.get("spec")
    described = spec.get("observation") if isinstance(spec, Mapping) else None
    return described if isinstance(described, Mapping) else None


def _leaves(observation: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in observation.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _sendable(value: Any, env_id: str, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, str):
        return value
    try:
        array: Array = np.asarray(value)
        is_picture = array.dtype == np.uint8 and array.ndim >= 2
        return array if is_picture else array.astype(dtype)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{env_id} shows {type(value).__name__}, expected arrays, or a map of them") from error


def _explained(error: RemoteError, env_id: str, observation: Mapping[str, Any], is_bare: bool) -> RemoteError:
    """A refusal of what an environment shows, or a failure of the policy at it, with what that was.

    is_bare: a policy without a spec got no map, but its only array.
    """
    if isinstance(error, ConnectionLost) or error.retryable:
        return error
    shown = ", ".join(f"{key} {_named(value)}" for key, value in observation.items())
    is_of_keys = len(observation) == 1 and any(word in str(error) for word in ("got keys", "KeyError"))
    hint = "; --obs-key names the key of what is sent" if is_of_keys else ""
    if is_bare and error.code == PolicyFailed.code:
        hint = "; a policy without a spec gets that array alone, and with --dialect openpi a map"
    return RemoteError(f"the policy does not answer what {env_id} shows ({shown}): {error}{hint}", code=error.code)


def _named(value: Any) -> str:
    return describe(value.dtype, value.shape) if isinstance(value, np.ndarray) else "text"
