"""`policyserve eval`: run a served policy in Gymnasium's real environments, over the wire."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
from tyro.conf import arg

from policyserve.cli import help_page
from policyserve.cli.configuration import Configuration, ConfigurationFlags, read_configuration
from policyserve.cli.effective import end_if_printed
from policyserve.cli.flags import flags_of
from policyserve.cli.keys import key_from_environment, naming_variable
from policyserve.cli.parsing import parse
from policyserve.cli.policies import find_adapter, find_source, overview, read_flags, take_policy
from policyserve.cli.setting import Setting
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn_of_keys
from policyserve.client.address import has_key, without_key
from policyserve.client.aio import AsyncClient
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.core.messages import Reply
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
    group: ClassVar[str] = "common"

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        check_given(env=self.env, obs_key=self.obs_key)
        for name in ("episodes", "sessions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name}: expected 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class EvalServer(ConfigurationFlags):
    """Run a policy in Gymnasium's environments: one that is served for the occasion, or a running server's.

    A key that the server asks for is taken from the environment, POLICYSERVE_API_KEY.
    """

    url: str = field(repr=False)
    """ws://host:port of a running server; without it, POLICY is served for the occasion."""
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
    flags = flags_of(EvalServer)
    target, words = take_policy(argv, flags)
    is_url_given = any(word.partition("=")[0] == "--url" for word in argv)
    try:
        configuration = read_configuration(words, target, environment={})
        policy = configuration.policy
        if target is not None and is_url_given:
            complain(f"expected a policy or --url, got {target} and --url ({PROG} --help)", ARGUMENT_ERROR)
        elif policy is not None and not is_url_given:
            _evaluate_policy(policy, words, configuration)
        elif help_page.wanted(argv) is not None:
            parse(EvalServer, f"{PROG} [POLICY]", argv, description=overview(str(EvalServer.__doc__)))
        elif is_url_given or configuration.has("url"):
            _evaluate_server(words, configuration)
        else:
            complain(f"expected a policy, or --url ws://host:port of a server ({PROG} --help)", ARGUMENT_ERROR)
    except PolicyserveError as error:
        complain(naming_variable(str(error)), FAILURE)
    except KeyboardInterrupt:
        sys.exit(130)


def _evaluate_server(argv: Sequence[str], configuration: Configuration) -> None:
    given = configuration.given_or_end(EvalServer, argv)
    flags = parse(EvalServer, PROG, argv, given=given)
    end_if_printed(flags, given)
    env_id = _environment(flags.run.env)
    warn_of_keys(flags.url)
    asyncio.run(_evaluate(Target(flags.url, flags.dialect), env_id, flags.run))


def _evaluate_policy(policy: Setting, argv: Sequence[str], configuration: Configuration) -> None:
    adapter = find_adapter(policy.value, policy.place)
    flags = read_flags(adapter, EvalPolicy, f"{PROG} {policy.value}", argv, configuration)
    source = find_source(adapter, flags.policy)
    env_id = _environment(flags.run.env or source.env_id)
    asyncio.run(_serve_and_evaluate(source, env_id, flags.run))


def _environment(env_id: str | None) -> str:
    if env_id is None:
        complain("--env is required, CartPole-v1 for example", ARGUMENT_ERROR)
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
