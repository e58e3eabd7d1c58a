"""`policyserve eval`: run a served policy in Gymnasium's real environments, over the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import numpy as np
from tyro.conf import arg

from policyserve.cli.configuration import Configuration, ConfigurationFlags, read_configuration
from policyserve.cli.effective import end_if_printed
from policyserve.cli.keys import key_from_environment, warn_of_keys
from policyserve.cli.parsing import parse
from policyserve.cli.policies import find_adapter, find_source, read_flags
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain
from policyserve.client.address import has_key, without_key
from policyserve.client.aio import AsyncClient
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.core.messages import Reply
from policyserve.policies import registry
from policyserve.policies.registry import Source, check_given
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server

if TYPE_CHECKING:
    from tqdm import tqdm

PROG = "policyserve eval"
_LOOPBACK = ServerConfig(host="127.0.0.1", port=0)

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class EvalFlags:
    """Closed loop: observe, ask the server, act; several episodes at once, each over a session of its own."""

    env: str | None = None
    """Gymnasium id such as CartPole-v1; None: the one that the policy was trained in, where it says so."""
    episodes: int = 20
    seed: int = 0
    """Episode i starts from seed + i."""
    sessions: int = 8
    """Episodes that run at the same time."""
    timeout_s: float = 60.0
    """For each answer."""
    obs_key: str = "obs"
    """The observation's key."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        check_given(env=self.env, obs_key=self.obs_key)
        for name in ("episodes", "sessions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name}: expected 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class EvalServer(ConfigurationFlags):
    """Evaluate whatever a running server serves.

    A key that the server asks for is taken from the environment, POLICYSERVE_API_KEY.
    """

    url: str = field(repr=False)
    """ws://host:port of the server."""
    dialect: str = "vibe_rl"
    """What the server speaks."""
    run: Annotated[EvalFlags, arg(name="")] = field(default_factory=EvalFlags)

    def __post_init__(self) -> None:
        check_given(url=self.url, dialect=self.dialect)


@dataclass(frozen=True)
class EvalPolicy(ConfigurationFlags, Generic[PolicyFlagsT]):
    """Evaluate a policy, over a server in this process."""

    policy: Annotated[PolicyFlagsT, arg(name="")]
    run: Annotated[EvalFlags, arg(name="")] = field(default_factory=EvalFlags)


@dataclass(frozen=True)
class Target:
    """A server to ask. Its key is the URL's, else the environment's."""

    url: str = field(repr=False)
    dialect: str

    @property
    def api_key(self) -> str | None:
        return None if has_key(self.url) else key_from_environment()


@dataclass
class Scores:
    """What the episodes brought: a return each, and the round trip of every step in ms."""

    returns: list[float] = field(default_factory=list)
    round_trips_ms: list[float] = field(default_factory=list)


def main(argv: Sequence[str]) -> None:
    """Evaluate a policy, or the server at --url; exits with 1 if it cannot, with 2 for wrong arguments."""
    target = argv[0] if argv else ""
    try:
        if target in ("-h", "--help"):
            print(f"usage: {PROG} --url ws://host:port --env ID [flags]\n       {PROG} POLICY [flags]\n")
            print(f"POLICY is one of {', '.join(registry.names())}, or {registry.OWN}")
            print(f"{PROG} --url x --help and {PROG} POLICY --help list the flags")
        elif target.startswith("-"):
            configuration = read_configuration(argv, environment={})
            if configuration.policy is not None:
                _evaluate_policy(configuration.policy.value, argv, configuration)
                return
            given = configuration.given_or_end(EvalServer, argv)
            flags = parse(EvalServer, PROG, argv, given=given)
            end_if_printed(flags, given)
            env_id = _environment(flags.run.env, PROG)
            warn_of_keys(PROG, flags.url)
            asyncio.run(_evaluate(Target(flags.url, flags.dialect), env_id, flags.run))
        elif target:
            _evaluate_policy(target, argv[1:], read_configuration(argv[1:], target, environment={}))
        else:
            known = ", ".join(registry.names())
            complain(f"{PROG}: expected --url ws://host:port or a policy ({known}), got nothing", ARGUMENT_ERROR)
    except PolicyserveError as error:
        complain(f"{PROG}: {error}", FAILURE)
    except KeyboardInterrupt:
        complain("", 130)


def _evaluate_policy(name: str, argv: Sequence[str], configuration: Configuration) -> None:
    prog = f"{PROG} {name}"
    place = configuration.policy.place if configuration.policy else ""
    adapter = find_adapter(name, place or PROG)
    flags = read_flags(adapter, EvalPolicy, prog, argv, configuration)
    source = find_source(adapter, flags.policy, prog)
    env_id = _environment(flags.run.env or source.env_id, prog)
    asyncio.run(_serve_and_evaluate(source, env_id, flags.run))


def _environment(env_id: str | None, prog: str) -> str:
    if env_id is None:
        complain(f"{prog}: --env is required, CartPole-v1 for example", ARGUMENT_ERROR)
    return env_id


async def _serve_and_evaluate(source: Source, env_id: str, run: EvalFlags) -> None:
    async with Server(source.recipe, _LOOPBACK) as server:
        await server.ready()
        host, port = server.address
        await _evaluate(Target(f"ws://{host}:{port}/vibe_rl", "vibe_rl"), env_id, run)


async def _evaluate(target: Target, env_id: str, flags: EvalFlags) -> None:
    make_env = _gymnasium_maker(env_id)
    progress = _progress_bar(flags.episodes)
    scores = Scores()
    seeds = iter(range(flags.seed, flags.seed + flags.episodes))

    async def play_episodes() -> None:
        """One session after the other, until no seed is left."""
        environment = make_env()
        try:
            for seed in seeds:
                async with AsyncClient(
                    target.url, dialect=target.dialect, api_key=target.api_key, timeout_s=flags.timeout_s, retry_for_s=0
                ) as client:
                    await _play(client, environment, seed, flags.obs_key, scores)
                progress.update()
                progress.set_postfix({"return": f"{np.mean(scores.returns):.1f}"})
        finally:
            environment.close()

    started_at = time.monotonic()
    players = [asyncio.ensure_future(play_episodes()) for _ in range(min(flags.sessions, flags.episodes))]
    try:
        await asyncio.gather(*players)
    finally:
        for player in players:
            player.cancel()
        progress.close()
    print(table(env_id, without_key(target.url), scores, time.monotonic() - started_at))


async def _play(client: AsyncClient, environment: Any, seed: int, obs_key: str, scores: Scores) -> None:
    observation, _ = environment.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        asked_at = time.perf_counter()
        reply = await client.infer({obs_key: np.asarray(observation, np.float32)})
        scores.round_trips_ms.append((time.perf_counter() - asked_at) * 1e3)
        for action in _actions(reply, environment.action_space):
            observation, reward, terminated, truncated, _ = environment.step(action)
            total += float(reward)
            over = terminated or truncated
            if over:
                break
    scores.returns.append(total)


def _actions(reply: Reply, space: Any) -> list[Any]:
    """The steps of a reply, one or a chunk of them, as the environment takes them; raises ConfigError otherwise."""
    steps = reply.actions
    if steps.ndim == len(space.shape):
        steps = steps[None]
    if steps.shape[1:] != space.shape:
        raise ConfigError(f"the environment's action is {space}, the policy answers shape {reply.actions.shape}")
    if not space.shape:
        return [int(step) for step in steps]
    return [np.asarray(step, space.dtype) for step in steps]


def _gymnasium_maker(env_id: str) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependency("gymnasium", "gym") from error
    try:
        gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        raise ConfigError(f"Gymnasium has no environment {env_id!r}: {error}") from error
    return lambda: gymnasium.make(env_id)


def _progress_bar(episodes: int) -> tqdm[Any]:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise MissingDependency("tqdm", "gym") from error
    return tqdm(total=episodes, unit="episode", leave=False, disable=None)  # None: only where a terminal can show it


def table(env_id: str, url: str, scores: Scores, seconds: float) -> str:
    """The result as a person reads it."""
    returns, trips = np.asarray(scores.returns), np.asarray(scores.round_trips_ms)
    rows = [
        ("environment", env_id),
        ("server", url),
        ("episodes", f"{len(returns)}"),
        (
            "return",
            f"{returns.mean():.1f} ± {returns.std():.1f}   (worst {returns.min():.1f}, best {returns.max():.1f})",
        ),
        ("answers", f"{len(trips)} in {seconds:.1f} s, {len(trips) / seconds:.0f} per second"),
        ("round trip", f"p50 {np.percentile(trips, 50):.2f} ms, p99 {np.percentile(trips, 99):.2f} ms"),
    ]
    return "\n".join(f"{name:12} {value}" for name, value in rows)
