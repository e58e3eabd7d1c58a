"""From a LeRobot checkpoint to a policy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec

from policyserve.core.errors import MissingDependency
from policyserve.core.log import Log
from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage
from policyserve.core.spec import PolicySpec
from policyserve.policies.lerobot.ensemble import Ensembling
from policyserve.policies.lerobot.layout import step_of
from policyserve.policies.lerobot.noise import Noise, noise_of
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.package import check_package, load_packaged
from policyserve.policies.lerobot.plan import Plan, make_plan, read_folder
from policyserve.policies.lerobot.policy import Asking, ChunkPolicy, Fit, Model, StepPolicy
from policyserve.policies.lerobot.spec import Shape, build_spec
from policyserve.policies.stacked import powers_of_two
from policyserve.policies.torch_device import find_device

log = Log(__name__)

_EXTRA = "lerobot"
_PACKAGES = ("torch", "safetensors")
_LARGEST_BATCH = {"cuda": 32, "cpu": 8}


def check_policy(named: str, flags: LeRobotFlags) -> None:
    """Check within a second what loading would find out first; raises ConfigError, MissingDependency."""
    config = read_folder(named)
    if config.network is None:
        check_package(config, flags)
        return
    make_plan(config, flags)
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingDependency(package, _EXTRA)
    if flags.device.startswith("cuda"):
        find_device(flags.device)


def load_policy(named: str, flags: LeRobotFlags, on_stage: OnStage) -> Policy:
    """Load the policy of a folder; raises ConfigError, MissingDependency."""
    check_policy(named, flags)
    config = read_folder(named)
    if config.network is None:
        return load_packaged(config, flags, on_stage)
    return _load(make_plan(config, flags), flags, on_stage)


def _load(plan: Plan, flags: LeRobotFlags, on_stage: OnStage) -> Policy:
    # Read when torch is imported. Threads of torch's that wait by spinning take the cores from the event loop and from
    # other programs: a chunk of a real-size ACT took 0.6 to 1.5 s on two busy cores, and 0.27 s without.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from policyserve.policies.lerobot.model import load_model
    from policyserve.policies.lerobot.resizing import fits_of

    model = load_model(
        plan.config,
        plan.statistics,
        plan.weights,
        device=flags.device,
        dtype=flags.dtype,
        threads=plan.threads,
        on_stage=on_stage,
    )
    device = find_device(flags.device)
    max_batch = flags.max_batch or _LARGEST_BATCH[device.type]
    # On a CPU nothing is compiled, so that one is enough to see whether it answers at all.
    buckets = (1,) if device.type == "cpu" else powers_of_two(max_batch)
    policy = assembled(plan, flags, model, max_batch, buckets, fits=fits_of(plan.config.images, flags.resize))
    step = step_of(plan.config.folder)
    about = {**policy.spec.metadata, "backend": "torch", "device": str(device)}
    about |= {} if step is None else {"checkpoint_step": step}
    policy.spec = replace(policy.spec, metadata=about)
    return policy


def assembled(
    plan: Plan,
    flags: LeRobotFlags,
    model: Model,
    max_batch: int,
    buckets: Sequence[int],
    noise: Noise | None = None,
    fits: Mapping[str, Fit] | None = None,
) -> ChunkPolicy | StepPolicy:
    """A loaded model as a policy. noise: None: what --seed says. fits: what makes pictures fit, by their features."""
    network, action = plan.config.network, plan.config.action
    assert network is not None
    frames = plan.config.n_obs_steps
    asking = Asking(
        model,
        noise or noise_of(flags.seed, (model.draws, network.chunk_size, action.shape[0])),
        plan.statistics.action,
        {one.name: plan.names.client[one.name] for one in plan.config.used},
        fits=fits,
        n_obs_steps=frames,
        has_history=flags.history,
    )
    is_resized = bool(fits)
    if plan.mode == "step":
        ensembling = None if network.ensemble is None else Ensembling(network.ensemble, network.chunk_size)
        spec = _spec(plan, Shape("step", None, max_batch, is_resized=is_resized))
        return StepPolicy(asking, spec, buckets, n_action_steps=network.n_action_steps, ensembling=ensembling)
    if frames > 1 and not flags.history:
        told = "its newest frame is repeated for the ones before, and so nothing moves: --history, or --mode step"
        log.warning("%s looks at %d frames and gets one: %s", plan.config.kind, frames, told)
    shape = Shape("chunk", plan.steps, max_batch, frames if flags.history else None, is_resized)
    return ChunkPolicy(asking, _spec(plan, shape), buckets)


def _spec(plan: Plan, shape: Shape) -> PolicySpec:
    return build_spec(plan.config, plan.statistics, plan.names, shape, plan.layout, plan.joints)
