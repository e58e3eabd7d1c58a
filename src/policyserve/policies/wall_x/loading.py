"""From a Wall-X configuration to a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from policyserve.core.errors import ConfigError, PolicyFailed
from policyserve.core.log import Log
from policyserve.core.policy import Policy
from policyserve.core.spec import PolicySpec
from policyserve.policies.wall_x.assembly import Plan, build_answering, build_processor, build_spec, make_plan
from policyserve.policies.wall_x.config import PATH_FIELDS, ModelConfig
from policyserve.policies.wall_x.memory import is_out_of_memory
from policyserve.policies.wall_x.options import Options
from policyserve.policies.wall_x.policy import Model, WallXModelPolicy
from policyserve.policies.wall_x.runtime import batch_that_fits, check_runtime
from policyserve.policies.wall_x.spec import wall_x_spec
from policyserve.policies.wall_x.stand_in import NOTICE, stand_in
from policyserve.policies.wall_x.tokens import special_ids

log = Log(__name__)

STAND_IN = "stand-in"  # a model path
_STAND_IN_BATCH = 16


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
    options, stage = options or Options(), on_stage or _no_stage
    check_rtc(config, options)
    if config.model_path == STAND_IN:
        log.warning("%s", NOTICE)
        return stand_in(_stand_in_spec(config, options, default_prompt, env), config, options)
    check_model(config)
    stage("reading the tokenizer and the statistics")
    plan = make_plan(config, options)
    processor = build_processor(plan)
    answering = build_answering(plan, processor.tokens)
    build_spec(plan, processor, default_prompt=default_prompt, env=env, max_batch=1)  # for what is wrong with it
    model = _load_model(plan, stage)  # last: what is wrong above is told within a second
    max_batch = options.max_batch or batch_that_fits(config, plan.architecture, cuda_graphs=options.cuda_graphs)
    log.info("conventions: %s", ", ".join(f"{name} {value}" for name, value in plan.conventions.describe().items()))
    log.info("the checkpoint's widths allow --conventions %s", ", ".join(plan.bundles))

    def policy_of(max_batch: int) -> WallXModelPolicy:
        spec = build_spec(plan, processor, default_prompt=default_prompt, env=env, max_batch=max_batch)
        return WallXModelPolicy(
            model,
            processor,
            answering,
            spec,
            on_undecodable=options.on_undecodable,
            # A server's own warm-up wants answers, and what a model writes for zeros need not decode; on a GPU all that
            # is done below.
            buckets=(1,) if plan.flow and config.device == "cpu" else (),
            sizes=_powers_of_two(max_batch),
        )

    policy = policy_of(max_batch)
    if config.device != "cpu":
        fitting = _warm_up(policy, stage, max_batch)
        if fitting < max_batch:
            if options.max_batch:
                told = f"expected at most {fitting}, which fit in the device's memory, got {max_batch}"
                raise ConfigError(f"max_batch: {told}")
            log.warning("out of memory in the warm-up: batches of at most %d", fitting)
            policy = policy_of(fitting)
    policy.begin_service()
    return policy


def check_rtc(config: ModelConfig, options: Options) -> None:
    """Raise ConfigError where real-time chunking is wanted of what samples no actions."""
    if options.rtc is not None and (config.model_path == STAND_IN or config.predict_mode == "fast"):
        what = "the stand-in" if config.model_path == STAND_IN else "--model-config.predict-mode fast"
        raise ConfigError(f"--rtc: expected off with {what}, which samples no actions, got {options.rtc.method}")


def check_model(config: ModelConfig) -> None:
    """Check within seconds what loading would find out first.

    Raises ConfigError for a path that does not exist or a device that is not there, MissingDependency for a package.
    """
    if config.model_path == STAND_IN:
        return
    for name in PATH_FIELDS:
        if getattr(config, name) == getattr(ModelConfig, name) and name not in config.missing_paths:
            continue  # nobody named it, and nobody needs it
        if not getattr(config, name):
            raise ConfigError(f"{name}: expected a path, got nothing")  # pathlib's path of nothing is this directory
        if not Path(getattr(config, name)).exists():
            raise ConfigError(f"{name}: {getattr(config, name)} does not exist")
    check_runtime(config)


def _stand_in_spec(config: ModelConfig, options: Options, default_prompt: str | None, env: str | None) -> PolicySpec:
    """The spec of the model as far as it is known without its checkpoint."""
    return wall_x_spec(
        replace(config, device="cpu"),  # where its numbers come from, whatever device a model would have
        default_prompt=default_prompt,
        env=env,
        max_batch=options.max_batch or _STAND_IN_BATCH,
        image_layout=options.image_layout,
        state_optional=options.allow_missing_state,
        normalises_state=options.conventions is not None and options.conventions.state == "normalised",
    )


def _no_stage(_stage: str) -> None:
    """For callers to whom loading is one step."""


def _load_model(plan: Plan, stage: Callable[[str], None]) -> Model:
    from policyserve.policies.wall_x.model import load_model

    config = plan.config
    try:
        return load_model(
            config.model_path,
            device=config.device,
            dtype=config.dtype,
            train_config=plan.train_config.fields,
            token_ids=special_ids(plan.tokenizer),
            cuda_graphs=plan.options.cuda_graphs,
            on_stage=stage,
        )
    except RuntimeError as error:
        if "CUDA" not in str(error):
            raise
        told = str(error).splitlines()[0]  # a GPU that this torch has no kernels for, or that is lost
        raise ConfigError(f"device: {config.device} cannot be used: {told}") from error


def _warm_up(policy: WallXModelPolicy, stage: Callable[[str], None], max_batch: int) -> int:
    """Compute batches of growing sizes. Returns the largest that there is memory for; raises PolicyFailed."""
    fitting = 0
    for size in _powers_of_two(max_batch):
        stage(f"warming up, batch {size}")
        try:
            policy.warm_up(size)
        except PolicyFailed as error:
            if fitting == 0 or error.__cause__ is None or not is_out_of_memory(error.__cause__):
                raise
            return fitting
        fitting = size
    return fitting


def _powers_of_two(largest: int) -> Sequence[int]:
    """Sizes of batches: their rows are filled up to the next of these."""
    return [*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest]
