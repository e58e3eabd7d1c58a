"""A Wall-X model on the command line, in the words of the founding document's launch_serving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage, Recipe
from policyserve.policies.registry import Source, check_given
from policyserve.policies.wall_x.config import MODEL_CONFIGS, PATH_FIELDS, ModelConfig
from policyserve.policies.wall_x.loading import STAND_IN, check_rtc, load_policy
from policyserve.policies.wall_x.options import OptionFlags, Options
from policyserve.policies.wall_x.runtime import check_runtime

_IMAGES = {"libero": "256x256", "aloha": "480x640"}  # what these robots' cameras give
_EXAMPLE = "/path/to/…"  # what ModelConfig's paths are where nobody gives one


@dataclass(frozen=True)
class WallXFlags:
    """Flags of a Wall-X model."""

    env: Literal["libero", "aloha"] = "libero"
    """The robot; it sets what --model-config's flags are when not given, and is told to clients."""
    default_prompt: str | None = None
    """The task where an observation has no prompt; without it, such an observation is refused."""
    model_config: ModelConfig = field(default_factory=ModelConfig)
    options: Annotated[OptionFlags, arg(name="")] = field(default_factory=OptionFlags)
    usual: ClassVar[tuple[str, ...]] = (
        "env", "default_prompt", "options.conventions", "options.max_batch",
        *(f"model_config.{name}" for name in (*PATH_FIELDS, "device", "dtype", "predict_mode")),
    )  # fmt: skip

    def __post_init__(self) -> None:
        paths = {f"model_config.{name}": getattr(self.model_config, name) for name in PATH_FIELDS}
        check_given(default_prompt=self.default_prompt, **paths)


@dataclass(frozen=True)
class WallXAdapter:
    """Serves a Wall-X checkpoint to Wall-X's clients; clients of the other dialects are served too."""

    target: str
    help = "a Wall-X (WALL-OSS) checkpoint, by flow sampling or action tokens"
    rest = ""
    flags = WallXFlags

    def defaults(self, given: WallXFlags | None) -> WallXFlags:
        """The sizes and cameras of the robot that --env names."""
        env = "libero" if given is None else given.env
        return WallXFlags(model_config=MODEL_CONFIGS[env], options=OptionFlags(warm_images=_IMAGES[env]))

    def source(self, flags: WallXFlags) -> Source:
        """Say what these flags stand for.

        Raises ConfigError for a path that is not given, conventions that do not fit or a device that is not there,
        MissingDependency for a package that is not installed.
        """
        config, options = flags.model_config, flags.options.options()
        check_rtc(config, options)
        if config.model_path != STAND_IN:
            _check_paths(config)
            with _flags_named():
                check_runtime(config)
        arguments = {"config": config, "default_prompt": flags.default_prompt, "env": flags.env, "options": options}
        recipe = Recipe(f"{__name__}:load_model", arguments)
        files = [] if config.model_path == STAND_IN else [Path(config.model_path)]
        return Source(_title(flags), f"model path {config.model_path}", recipe, files=lambda: files)


def load_model(
    config: ModelConfig, default_prompt: str | None, env: str, options: Options, on_stage: OnStage
) -> Policy:
    """The policy that the flags describe; raises what load_policy does, with the flag of a model's setting."""
    on_stage("loading the checkpoint")
    with _flags_named():
        return load_policy(config, default_prompt=default_prompt, env=env, options=options, on_stage=on_stage)


@contextmanager
def _flags_named() -> Iterator[None]:
    """Names the flag of a model's setting that an error begins with."""
    try:
        yield
    except ConfigError as error:
        name, colon, rest = str(error).partition(": ")
        if name not in {one.name for one in fields(ModelConfig)}:
            raise
        raise ConfigError(f"{_flag_of(name)}{colon}{rest}") from error


def _check_paths(config: ModelConfig) -> None:
    if config.missing_paths:
        named = ", ".join(map(_flag_of, config.missing_paths))
        hint = f"--model-config.model-path {STAND_IN} serves numbers without a model"
        raise ConfigError(f"expected a path of your own for {named}, not the documents' {_EXAMPLE}; {hint}")


def _flag_of(name: str) -> str:
    return f"--model-config.{name.replace('_', '-')}"


def _title(flags: WallXFlags) -> str:
    if flags.model_config.model_path == STAND_IN:
        return f"a stand-in for a Wall-X model of {flags.env}: its actions control nothing"
    return f"a Wall-X model of {flags.env}, {flags.model_config.predict_mode}"
