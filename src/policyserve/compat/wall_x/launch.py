"""Wall-X's launch_serving: the founding command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import arg

from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, parse, serve_until_stopped
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.policy import Policy
from policyserve.engine.answering import OnStage
from policyserve.engine.recipe import Recipe
from policyserve.policies.wall_x import (
    MODEL_CONFIGS,
    STAND_IN,
    ModelConfig,
    OptionFlags,
    Options,
    check_runtime,
    load_policy,
)
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server


@dataclass(frozen=True)
class LaunchFlags:
    """Serve a Wall-X model to Wall-X's clients; clients of the other dialects are served under their paths."""

    env: Literal["libero", "aloha"] = "libero"
    """The robot; it sets what --model-config's flags are when not given, and is told to clients."""
    default_prompt: str | None = None
    """The task where an observation has no prompt; without it, such an observation is refused."""
    server: Annotated[ServerConfig, arg(name="")] = field(default_factory=ServerConfig)
    debug: bool = False
    """Log every step, and tracebacks of errors that end the program."""
    model_config: ModelConfig = field(default_factory=ModelConfig)
    options: Annotated[OptionFlags, arg(name="")] = field(default_factory=OptionFlags)


def launch_serving(argv: Sequence[str] | None = None, *, prog: str = "launch_serving", dialect: str = "wall_x") -> None:
    """Serve until a signal; exits with 2 for wrong arguments, with 1 for a checkpoint that cannot be served.

    prog: the command's name in messages. dialect: what `/` speaks.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    default = LaunchFlags(model_config=MODEL_CONFIGS[_env_in(args)], server=ServerConfig(dialect=dialect))
    flags = parse(LaunchFlags, prog, args, default)
    config = flags.model_config
    if config.model_path != STAND_IN and config.missing_paths:
        named = ", ".join(f"--model-config.{name.replace('_', '-')}" for name in config.missing_paths)
        hint = f"--model-config.model-path {STAND_IN} serves numbers without a model"
        complain(f"{prog}: expected a path for each of {named}; {hint}", ARGUMENT_ERROR)

    try:
        options = flags.options.options()
        server = Server(_recipe(flags, options), flags.server)
        if config.model_path != STAND_IN:
            check_runtime(config)
    except MissingDependency as error:
        complain(f"{prog}: {error}", FAILURE)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR)
    serve_until_stopped(server, _title(flags), f"model path {config.model_path}", flags.debug)


def load_model(
    config: ModelConfig, default_prompt: str | None, env: str, options: Options, on_stage: OnStage
) -> Policy:
    """The policy that the flags describe."""
    on_stage("loading the checkpoint")
    return load_policy(config, default_prompt=default_prompt, env=env, options=options, on_stage=on_stage)


def _recipe(flags: LaunchFlags, options: Options) -> Recipe:
    arguments = {"config": flags.model_config, "default_prompt": flags.default_prompt, "env": flags.env}
    return Recipe(f"{__name__}:load_model", {**arguments, "options": options})


def _title(flags: LaunchFlags) -> str:
    if flags.model_config.model_path == STAND_IN:
        return f"a stand-in for a Wall-X model of {flags.env}: its actions control nothing"
    return f"a Wall-X model of {flags.env}, {flags.model_config.predict_mode}"


def _env_in(args: Sequence[str]) -> str:
    """The robot that the arguments name; a wrong one is parse()'s to refuse."""
    env = "libero"
    for place, word in enumerate(args):
        if word == "--env" and place + 1 < len(args):
            env = args[place + 1]
        elif word.startswith("--env="):
            env = word.partition("=")[2]
    return env if env in MODEL_CONFIGS else "libero"
