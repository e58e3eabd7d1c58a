"""`policyserve eval`: run a served policy in Gymnasium's real environments, over the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
from tyro.conf import arg

from policyserve import dialects
from policyserve.bench import video
from policyserve.bench.environments import Environment
from policyserve.bench.episodes import OnStep, Plan, Target, key_of, play
from policyserve.bench.figures import ENDINGS, new_figure
from policyserve.bench.in_real_time import RealtimePlan, check_space
from policyserve.bench.machine import counted, this_machine
from policyserve.bench.scores import Scores, as_json, row, table
from policyserve.bench.scores_plot import plot_scores
from policyserve.cli.arguments import help_page
from policyserve.cli.arguments.configuration import Configuration, ConfigurationFlags, read_configuration
from policyserve.cli.arguments.effective import end_if_printed
from policyserve.cli.arguments.flags import flags_of
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.arguments.setting import Setting
from policyserve.cli.eval_realtime import RealtimeFlags
from policyserve.cli.foreground.progress import ProgressLine
from policyserve.cli.keys import key_from_environment, naming_variable
from policyserve.cli.policies import find_adapter, find_source, overview, read_flags, take_policy
from policyserve.cli.targets import STDOUT, check_apart, check_target, people_read, write_json
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn_of_keys
from policyserve.client.address import has_key, without_key
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.policies import registry
from policyserve.policies.registry import Source, check_given
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server

PROG = "policyserve eval"
_LOOPBACK = ServerConfig(host="127.0.0.1", port=0)
_SHOWN_EVERY_S = 0.2

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class EvalFlags:
    """Closed loop: observe, ask the server, act; several episodes at once, each over a session of its own."""

    env: str | None = None
    """Gymnasium id such as CartPole-v1; None: the one that the policy was trained in, where it says so."""
    episodes: int = 20
    """How many to play."""
    seed: int = 0
    """Episode i starts from seed + i."""
    sessions: int = 8
    """Episodes that run at the same time."""
    timeout_s: float = 60.0
    """For each answer."""
    obs_key: str | None = None
    """The observation's key; None: the only one that the policy asks for, where it says so, else obs."""
    json: Path | None = None
    """Write all figures to this file; `-` is stdout, and the table goes to stderr then."""
    plot: Path | None = None
    """Draw returns and round trips to this file (.png, .svg, .pdf)."""
    video: Path | None = None
    """Film the first episodes to this file (.mp4, .gif)."""
    video_episodes: int = 1
    """How many to film."""
    group: ClassVar[str] = "common"

    def __post_init__(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        check_given(env=self.env, obs_key=self.obs_key)
        for name in ("episodes", "sessions", "video_episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: expected 1 or more, got {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigError(f"--seed: expected 0 or more, got {self.seed}")
        if not self.timeout_s > 0:
            raise ConfigError(f"--timeout-s: expected more than 0, got {self.timeout_s}")


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
    time: Annotated[RealtimeFlags, arg(name="")] = field(default_factory=RealtimeFlags)

    def __post_init__(self) -> None:
        check_given(url=self.url, dialect=self.dialect)
        dialects.by_name(self.dialect)


@dataclass(frozen=True)
class EvalPolicy(ConfigurationFlags, Generic[PolicyFlagsT]):
    """Evaluate a policy, over a server in this process."""

    policy: Annotated[PolicyFlagsT, arg(name="")]
    run: Annotated[EvalFlags, arg(name="")] = field(default_factory=EvalFlags)
    time: Annotated[RealtimeFlags, arg(name="")] = field(default_factory=RealtimeFlags)
    dialect: str | None = None
    """How to speak with it; None: openpi with a policy that has a spec, else vibe_rl, which sends an array alone."""

    def __post_init__(self) -> None:
        check_given(dialect=self.dialect)
        if self.dialect is not None:
            dialects.by_name(self.dialect)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, in which environment, and where its results go.

    policy: rows of the table that say which it is. solved_return: None where nobody says. realtime: None: it waits.
    """

    policy: tuple[tuple[str, str], ...]
    env_id: str
    run: EvalFlags
    fps: float
    solved_return: float | None
    realtime: RealtimePlan | None = None

    @property
    def plan(self) -> Plan:
        """The episodes to play."""
        run = self.run
        return Plan(self.env_id, run.episodes, run.seed, run.sessions, run.timeout_s, run.obs_key, self.realtime)


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
        complain("interrupted before an episode was over", 130)


def _evaluate_server(argv: Sequence[str], configuration: Configuration) -> None:
    given = configuration.given_or_end(EvalServer, argv)
    flags = parse(EvalServer, PROG, argv, given=given)
    end_if_printed(flags, given)
    work = _checked((("server", without_key(flags.url)),), flags.run.env, flags.run, flags.time.plan)
    warn_of_keys(flags.url)
    api_key = None if has_key(flags.url) else key_from_environment()
    _evaluate(work, lambda scores, on_step: _play(Target(flags.url, flags.dialect, api_key), work, scores, on_step))


def _evaluate_policy(policy: Setting, argv: Sequence[str], configuration: Configuration) -> None:
    adapter = find_adapter(policy.value, policy.place)
    flags = read_flags(adapter, EvalPolicy, f"{PROG} {policy.value}", argv, configuration)
    source = find_source(adapter, flags.policy)
    told = registry.taken_for(adapter)
    rows = (("policy", policy.value), *((("taken for", told),) if told else ()))
    work = _checked(rows, flags.run.env or source.env_id, flags.run, flags.time.plan)
    _evaluate(work, lambda scores, on_step: _serve_and_play(source, flags.dialect, work, scores, on_step))


def _checked(
    policy: tuple[tuple[str, str], ...], env_id: str | None, run: EvalFlags, realtime: RealtimePlan | None
) -> Evaluation:
    """What is to be done; exits with 2 for what would else be found wrong at its end, with 1 for a missing package."""
    if env_id is None:
        complain("--env is required, CartPole-v1 for example", ARGUMENT_ERROR)
    try:
        check_target("json", run.json)
        check_target("plot", run.plot, ENDINGS)
        check_target("video", run.video, video.ENDINGS)
        check_apart(json=run.json, plot=run.plot, video=run.video)
        if run.plot is not None:
            new_figure()
        if run.video is not None:
            video.check_encoder(run.video)
        environment = Environment(env_id, draws=run.video is not None)
        try:
            if realtime is not None:
                check_space(environment)
            environment.reset(run.seed)
            if run.video is not None:
                environment.frame()
            return Evaluation(policy, env_id, run, environment.fps, environment.solved_return, realtime)
        finally:
            environment.close()
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)


async def _serve_and_play(
    source: Source, dialect: str | None, work: Evaluation, scores: Scores, on_step: OnStep
) -> None:
    async with Server(source.recipe, _LOOPBACK) as server:
        spec = await server.ready()
        host, port = server.address
        spoken = dialect or ("vibe_rl" if spec.observation is None else "openpi")  # which tells errors whole
        needed = {path: leaf for path, leaf in spec.leaves.items() if not leaf.optional}
        run = replace(work.run, obs_key=work.run.obs_key or key_of(needed))
        target = Target(f"ws://{host}:{port}/{spoken}", spoken, key_from_environment())
        await _play(target, replace(work, run=run), scores, on_step)


async def _play(target: Target, work: Evaluation, scores: Scores, on_step: OnStep) -> None:
    with video.filming(work.run.video, work.fps) as film:
        await play(target, work.plan, scores, on_step, film, work.run.video_episodes)
        if film is not None and film.left_out:
            scores.notes.append(f"the film ends early: a .gif has {video.GIF_FRAMES} pictures at most, an .mp4 any")


def _evaluate(work: Evaluation, playing: Callable[[Scores, OnStep], Coroutine[Any, Any, None]]) -> None:
    """Play, show how far it is, and tell the result; Ctrl-C ends it with what there is, and 130."""
    scores = Scores()
    try:
        with _progress_bar(work.run.episodes) as show:
            asyncio.run(playing(scores, show))
    except KeyboardInterrupt:
        if not scores.episodes:
            raise
        _tell(work, table(work.env_id, work.policy, scores))
        over = f"{len(scores.episodes)} of {counted(work.run.episodes, 'episode')}"
        complain(f"stopped after {over}; no file is written", 130)
    _tell(work, table(work.env_id, work.policy, scores))
    _keep(work, scores)


def _keep(work: Evaluation, scores: Scores) -> None:
    """Write the files that were asked for; the film is there already."""
    run = work.run
    write_json("json", run.json, as_json(work.env_id, work.policy, scores, this_machine()))
    if run.plot is not None:
        plot_scores(work.env_id, work.policy[0][1], scores, work.solved_return, run.plot)
    for path in (run.video, run.plot, run.json):
        if path is not None and path != STDOUT:
            _tell(work, row("written", path))


def _tell(work: Evaluation, text: str) -> None:
    print(text, file=people_read(work.run.json), flush=True)


@contextmanager
def _progress_bar(episodes: int) -> Iterator[OnStep]:
    """A bar on a terminal, below what the policy prints, which is gone at the end."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise MissingDependency("tqdm", "gym") from error
    started_at = time.monotonic()
    shown_at = 0.0
    line = ProgressLine(beside_pipe=True)

    def show(scores: Scores) -> None:
        nonlocal shown_at
        now, done = time.monotonic(), len(scores.episodes)
        if now - shown_at < _SHOWN_EVERY_S and done < episodes:
            return
        shown_at = now
        mean = f"return {np.mean(scores.returns):.1f}, " if done else ""
        told = f"{mean}{counted(len(scores.round_trips_ms), 'answer')}"
        line.show(tqdm.format_meter(done, episodes, now - started_at, line.columns, unit="episode", postfix=told))

    with line.shared():
        show(Scores())
        try:
            yield show
        finally:
            line.start_line()
