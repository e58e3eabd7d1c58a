"""From a Wall-X configuration to a policy."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.policy import Policy
from policyserve.policies.wall_x.config import PATH_FIELDS, ModelConfig
from policyserve.policies.wall_x.conventions import Conventions, fit_conventions
from policyserve.policies.wall_x.fast import load_fast_tokenizer
from policyserve.policies.wall_x.norm_files import load_normalizer
from policyserve.policies.wall_x.normalizer import Normalizer
from policyserve.policies.wall_x.options import Options
from policyserve.policies.wall_x.policy import Answering, FastAnswering, FlowAnswering, WallXModelPolicy
from policyserve.policies.wall_x.processor import Processor
from policyserve.policies.wall_x.spec import wall_x_spec
from policyserve.policies.wall_x.stand_in import NOTICE, stand_in
from policyserve.policies.wall_x.tokens import MAX_LENGTH, PromptTokens, load_tokenizer, read_action_tokens
from policyserve.policies.wall_x.train_config import TrainConfig, read_train_config

if TYPE_CHECKING:
    from policyserve.policies.wall_x.architecture import Architecture

log = logging.getLogger(__name__)

STAND_IN = "stand-in"  # a model path
_STAND_IN_BATCH = 16
_EXTRA = "wall-x"
_PACKAGES = {
    "torch": "torch",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "PIL": "Pillow",
    "yaml": "PyYAML",
}
_LARGEST_BATCH = {"cuda": 16, "cpu": 8}
_MEMORY_SHARE = 0.8  # of what is free once the weights are there


def load_policy(
    config: ModelConfig,
    *,
    default_prompt: str | None = None,
    env: str | None = None,
    options: Options | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Policy:
    """Load the model; with the model path `stand-in`, a policy of the same spec that needs none.

    on_stage: called with what is being done. Raises ConfigError for a configuration, a device or files that do not
    fit, MissingDependency where a package is not installed.
    """
    options, stage = options or Options(), on_stage or (lambda _stage: None)
    if config.model_path == STAND_IN:
        log.warning("%s", NOTICE)
        return stand_in(wall_x_spec(config, default_prompt=default_prompt, env=env, max_batch=_STAND_IN_BATCH))
    check_paths(config)
    check_runtime(config)
    stage("reading the tokenizer and the statistics")
    train_config = _train_config(config)
    architecture = _architecture(config, train_config)
    conventions = _conventions(config, options, architecture)
    normalizer = load_normalizer(
        Path(config.model_path), train_config, mean_std=conventions.statistics == "mean_std"
    )
    normalizer = check_widths(normalizer, config, conventions, architecture.action_dim)
    tokens, answering = _tokens_and_answering(config, options, conventions, train_config)
    processor = Processor(
        tokens=tokens,
        normalizer=normalizer,
        conventions=conventions,
        cameras=tuple(config.camera_key),
        horizon=config.pred_horizon,
        state_dim=config.state_dim,
        action_dim=config.action_dim,
        state_width=architecture.state_dim,
        action_width=architecture.action_dim,
        flow=config.predict_mode == "diffusion",
        seed=options.seed,
        image_layout=options.image_layout,
        allow_missing_state=options.allow_missing_state,
    )
    network = _load_network(config, train_config, stage)
    max_batch = options.max_batch or _max_batch(config, architecture)
    spec = wall_x_spec(
        config,
        default_prompt=default_prompt,
        env=env,
        max_batch=max_batch,
        image_layout=options.image_layout,
        noise_width=architecture.action_dim if processor.flow else None,
        state_optional=options.allow_missing_state,
        normalises_state=conventions.state == "normalised",
        dataset_names=normalizer.names,
        action_names=train_config.action_names(config.action_dim),
        state_names=train_config.state_names(config.state_dim),
        metadata={"conventions": conventions.describe(), "num_steps": options.num_steps},
    )
    log.info("conventions: %s", ", ".join(f"{name} {value}" for name, value in conventions.describe().items()))
    return _warmed(network, processor, answering, replace(spec), options, config.device, stage)


def check_paths(config: ModelConfig) -> None:
    """Raise ConfigError for a path that does not exist; sampled actions need no action tokenizer."""
    for name in PATH_FIELDS:
        is_needless = config.predict_mode == "diffusion" and name == "action_tokenizer_path"
        if is_needless and name in config.missing_paths:
            continue
        if not Path(getattr(config, name)).exists():
            raise ConfigError(f"{name}: {getattr(config, name)} does not exist")


def check_runtime(config: ModelConfig) -> None:
    """Raise MissingDependency for a package that is not installed, ConfigError for a device that is not there."""
    if config.model_path == STAND_IN:
        return
    for module, package in _PACKAGES.items():
        try:
            import_module(module)
        except ImportError as error:
            raise MissingDependency(package, _EXTRA) from error
    if config.device == "cuda" and not import_module("torch").cuda.is_available():
        raise ConfigError("device cuda: torch finds no CUDA device here; choose device cpu")


def check_widths(
    normalizer: Normalizer, config: ModelConfig, conventions: Conventions, action_width: int
) -> Normalizer:
    """The data sets whose statistics are as wide as this robot's vectors; raises ConfigError if there is none.

    A file may hold other robots' too: those are left out, so that nobody can name them.
    """
    needs_state = conventions.state == "normalised"
    fitting = {
        name: scale
        for name, scale in normalizer.action.items()
        if config.action_dim <= scale.low.size <= action_width
        and (not needs_state or (name in normalizer.state and normalizer.state[name].low.size >= config.state_dim))
    }
    if not fitting:
        sizes = ", ".join(f"{name} {scale.low.size}" for name, scale in normalizer.action.items())
        raise ConfigError(f"action_dim: expected statistics of at least {config.action_dim} numbers, got {sizes}")
    return Normalizer(fitting, normalizer.state)


def _train_config(config: ModelConfig) -> TrainConfig:
    path = Path(config.train_config_path)
    return read_train_config(path / "config.yml" if path.is_dir() else path)


def _architecture(config: ModelConfig, train_config: TrainConfig) -> Architecture:
    from policyserve.policies.wall_x.architecture import read_architecture

    return read_architecture(config.model_path, train_config.fields)


def _conventions(config: ModelConfig, options: Options, architecture: Architecture) -> Conventions:
    chosen = fit_conventions(
        options.conventions,
        state_dim=config.state_dim,
        action_dim=config.action_dim,
        state_width=architecture.state_dim,
        action_width=architecture.action_dim,
    )
    if chosen.attention == "upstream_sdpa" and architecture.is_action_attention_causal:
        return replace(chosen, attention="causal")  # what upstream does then
    return chosen


def _tokens_and_answering(
    config: ModelConfig, options: Options, conventions: Conventions, train_config: TrainConfig
) -> tuple[PromptTokens, Answering]:
    model_path = Path(config.model_path)
    is_fast = config.predict_mode == "fast"
    fast = load_fast_tokenizer(Path(config.action_tokenizer_path)) if is_fast else None
    adds_action_tokens = fast is not None and train_config.fields.get("action_tokenizer_type") == "fast"
    tokenizer = load_tokenizer(
        model_path, train_config.processor_path, action_tokens=fast.vocab_size if fast and adds_action_tokens else 0
    )
    tokens = PromptTokens(tokenizer, config.camera_key, allow_special_tokens=options.allow_special_tokens)
    if fast is None:
        return tokens, FlowAnswering(conventions.attention, options.num_steps)
    first_id, count = read_action_tokens(model_path, tokenizer)
    if fast.vocab_size != count:
        raise ConfigError(
            f"action_tokenizer_path: expected {count} tokens, as the model has, got {fast.vocab_size} in "
            f"{config.action_tokenizer_path}"
        )
    return tokens, FastAnswering(fast, first_id, tokens.text_of, config.pred_horizon, config.action_dim)


def _load_network(config: ModelConfig, train_config: TrainConfig, stage: Callable[[str], None]) -> Any:
    from policyserve.policies.wall_x.model import load_model

    return load_model(
        config.model_path,
        device=config.device,
        dtype=config.dtype,
        train_config=train_config.fields,
        on_stage=stage,
    )


def _max_batch(config: ModelConfig, architecture: Architecture) -> int:
    """As many observations of the greatest length as fit in the memory that is free, up to the device's cap."""
    vision = architecture.vision
    cache = 2 * architecture.layers * architecture.kv_heads * architecture.head_dim
    layer = 8 * architecture.hidden + 3 * max(expert.inner for expert in architecture.experts)
    patches = vision.merge**2 * (8 * vision.width + 3 * vision.inner)
    bytes_each = MAX_LENGTH * (cache + layer + patches) * (4 if config.dtype == "float32" else 2)
    fitting = int(_free_bytes(config.device) * _MEMORY_SHARE / bytes_each)
    return max(1, min(_LARGEST_BATCH[config.device], fitting))


def _free_bytes(device: str) -> float:
    if device == "cuda":
        return import_module("torch").cuda.mem_get_info()[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # this system does not tell
        return float("inf")


def _warmed(
    network: Any,
    processor: Processor,
    answering: Answering,
    spec: Any,
    options: Options,
    device: str,
    stage: Callable[[str], None],
) -> WallXModelPolicy:
    """The policy. What FAST writes for zeros need not decode, so a server's own warm-up cannot be used there."""
    sizes = [1] if device == "cpu" else [1 << power for power in range(spec.max_batch.bit_length())]
    policy = WallXModelPolicy(
        network,
        processor,
        answering,
        spec,
        on_undecodable=options.on_undecodable,
        buckets=sizes if processor.flow else (),
    )
    if not processor.flow:
        stage("warming up")
        policy.warm_up(sizes)
    return policy
