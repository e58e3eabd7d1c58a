"""A checkpoint directory, a configuration and options, put together to what stands around the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.core.spec import PolicySpec
from policyserve.policies.wall_x.architecture import Architecture, read_architecture
from policyserve.policies.wall_x.config import ModelConfig
from policyserve.policies.wall_x.conventions import Conventions, bundles_that_fit, fit_conventions
from policyserve.policies.wall_x.fast import load_fast_tokenizer
from policyserve.policies.wall_x.norm_files import load_normalizer
from policyserve.policies.wall_x.options import Options
from policyserve.policies.wall_x.policy import Answering, FastAnswering, FlowAnswering
from policyserve.policies.wall_x.processor import Processor
from policyserve.policies.wall_x.spec import wall_x_spec
from policyserve.policies.wall_x.tokens import PromptTokens, load_tokenizer, read_action_tokens, special_ids
from policyserve.policies.wall_x.train_config import TrainConfig, read_train_config


@dataclass(frozen=True)
class Plan:
    """What is to be served and how, all questions answered: conventions are those that fit the checkpoint.

    bundles: the names of all that its widths allow.
    """

    config: ModelConfig
    options: Options
    train_config: TrainConfig
    tokenizer: Any
    architecture: Architecture
    conventions: Conventions
    bundles: tuple[str, ...]

    @property
    def flow(self) -> bool:
        """Whether actions are sampled; otherwise they are written as tokens."""
        return self.config.predict_mode == "diffusion"


def make_plan(config: ModelConfig, options: Options) -> Plan:
    """Read the train config and the checkpoint's sizes; raises ConfigError for what does not fit."""
    path = Path(config.train_config_path)
    train_config = read_train_config(path / "config.yml" if path.is_dir() else path)
    tokenizer = _read_tokenizer(config, train_config)
    architecture = read_architecture(config.model_path, train_config.fields, token_ids=special_ids(tokenizer))
    widths = {
        "state_dim": config.state_dim,
        "action_dim": config.action_dim,
        "state_width": architecture.state_dim,
        "action_width": architecture.action_dim,
    }
    conventions = fit_conventions(options.conventions, **widths)
    if conventions.attention == "upstream_sdpa" and architecture.is_action_attention_causal:
        conventions = replace(conventions, attention="causal")  # what upstream does then
    return Plan(config, options, train_config, tokenizer, architecture, conventions, bundles_that_fit(**widths))


def build_processor(plan: Plan) -> Processor:
    """What stands before the network, its statistics and tokenizer loaded; raises ConfigError."""
    config, architecture, conventions = plan.config, plan.architecture, plan.conventions
    mean_std = conventions.statistics == "mean_std"
    state_dims = range(config.state_dim, architecture.state_dim + 1) if conventions.state == "normalised" else None
    action_dims = range(config.action_dim, architecture.action_dim + 1)
    normalizer = load_normalizer(Path(config.model_path), plan.train_config, mean_std=mean_std)
    return Processor(
        tokens=PromptTokens(plan.tokenizer, config.camera_key, allow_special_tokens=plan.options.allow_special_tokens),
        normalizer=normalizer.fitting(action_dims, state_dims),
        conventions=conventions,
        cameras=tuple(config.camera_key),
        horizon=config.pred_horizon,
        state_dim=config.state_dim,
        action_dim=config.action_dim,
        state_width=architecture.state_dim,
        action_width=architecture.action_dim,
        flow=plan.flow,
        seed=plan.options.seed,
        image_layout=plan.options.image_layout,
        allow_missing_state=plan.options.allow_missing_state,
        takes_prefix=plan.options.rtc is not None,
    )


def build_answering(plan: Plan, tokens: PromptTokens) -> Answering:
    """What stands behind the network; raises ConfigError for a FAST tokenizer that is not this model's."""
    config = plan.config
    if plan.flow:
        return FlowAnswering(plan.conventions.attention, plan.options.num_steps, plan.options.rtc)
    fast = load_fast_tokenizer(Path(config.action_tokenizer_path))
    first_id, count = read_action_tokens(Path(config.model_path), tokens.tokenizer)
    if fast.vocab_size != count:
        path = config.action_tokenizer_path
        raise ConfigError(
            f"action_tokenizer_path: expected {count} tokens, as the model has, got {fast.vocab_size} in {path}"
        )
    return FastAnswering(fast, first_id, tokens.text_of, config.pred_horizon, config.action_dim)


def build_spec(
    plan: Plan, processor: Processor, *, default_prompt: str | None, env: str | None, max_batch: int
) -> PolicySpec:
    """What the policy takes and gives, with what clients are told about it."""
    config, train_config = plan.config, plan.train_config
    return wall_x_spec(
        config,
        default_prompt=default_prompt,
        env=env,
        max_batch=max_batch,
        image_layout=plan.options.image_layout,
        image_sizes=plan.options.image_sizes(len(config.camera_key)),
        noise_width=plan.architecture.action_dim if plan.flow else None,
        state_optional=plan.options.allow_missing_state,
        normalises_state=plan.conventions.state == "normalised",
        dataset_names=processor.normalizer.names,
        action_names=train_config.action_names(config.action_dim),
        state_names=train_config.state_names(config.state_dim),
        metadata={"conventions": plan.conventions.describe(), "num_steps": plan.options.num_steps},
        method=None if plan.options.rtc is None else plan.options.rtc.method,
    )


def _read_tokenizer(config: ModelConfig, train_config: TrainConfig) -> Any:
    added = 0
    if config.predict_mode == "fast" and train_config.fields.get("action_tokenizer_type") == "fast":
        added = load_fast_tokenizer(Path(config.action_tokenizer_path)).vocab_size
    return load_tokenizer(Path(config.model_path), train_config.processor_path, action_tokens=added)
