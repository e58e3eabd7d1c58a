"""Policies of types that are not ours, through the lerobot package of the environment that policyserve runs in.

What the package is handed was checked: no step of the processors' files imports anything that a file names. Sessions
are kept apart here, as the package's own policies remember one episode.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.core.recipe import OnStage
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.policies.lerobot.config import NATIVE, VISUAL, PolicyConfig
from policyserve.policies.lerobot.noise import noise_of
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.pictures import as_last
from policyserve.policies.lerobot.plan import check_resize
from policyserve.policies.lerobot.policy import Asking, ChunkPolicy, Fit, Frame, Row, StepPolicy, framed
from policyserve.policies.lerobot.processors import AFTER, BEFORE, check_for_package, has_processors
from policyserve.policies.lerobot.rtc import (
    METHOD,
    PrefixChunkPolicy,
    arguments_of,
    switch_on,
    takes_prefix,
)
from policyserve.policies.lerobot.spec import TASK, leaf_of, task_spec
from policyserve.policies.naming import client_names
from policyserve.policies.prefix import Prefix, rtc_facts, rtc_leaves
from policyserve.policies.torch_device import find_device

_PACKAGE = "lerobot"
ACTION = "action"  # the package's name of it in a batch
_BATCH = {"cuda": 32, "cpu": 4}
# Types whose policies keep frames, plans or caches; of all others a chunk depends on its observation alone.
REMEMBERING = ("vqbet", "tdmpc", "multi_task_dit", "lingbot_va")
_WITHOUT_TASK = ("vqbet", "tdmpc")


def check_package(config: PolicyConfig, flags: LeRobotFlags) -> None:
    """Raise ConfigError for files that the package must not be handed, MissingDependency where it is not installed."""
    if not has_processors(config.folder):
        told = f"{config.folder}: expected {BEFORE} and {AFTER}, got none: LeRobot would leave out the statistics"
        raise ConfigError(f"{told}; python -m lerobot.processor.migrate_policy_normalization")
    check_for_package(config.folder)
    if find_spec(_PACKAGE) is None:
        told = f"{config.folder} is a LeRobot {config.kind} policy; policyserve runs {' and '.join(NATIVE)} itself"
        advice = "install policyserve where lerobot is installed, with what it needs for this type"
        raise MissingDependency(_PACKAGE, _PACKAGE, f"{told}: {advice}")
    if flags.dtype != "float32":
        raise ConfigError(f"--dtype: expected none for {config.kind}, whose own config.json says what it computes in")
    check_resize(config, flags)
    if flags.history:
        raise ConfigError(f"--history: expected none for {config.kind}, which the lerobot package runs")
    takes_prefix(config.kind, flags, is_step=flags.mode == "step" or config.kind in REMEMBERING)
    if config.kind in REMEMBERING and (flags.mode == "chunk" or flags.horizon is not None):
        raise ConfigError(f"--mode: expected step for {config.kind}, which remembers, without --horizon")


def load_packaged(config: PolicyConfig, flags: LeRobotFlags, on_stage: OnStage) -> Policy:
    """Load a policy through the package; raises what that does, and ConfigError for a device that is not there."""
    from policyserve.policies.lerobot.resizing import fits_of

    device = find_device(flags.device)
    on_stage("importing lerobot")
    package = _Package(config, str(device), on_stage)
    names = client_names(
        [one.name for one in config.features], flags.renames, others=_texts(config), also=_also(config)
    )
    known = {own: names.client[own] for own in (*[one.name for one in config.features], *_texts(config))}
    fits = fits_of(config.images, flags.resize)
    is_resized = bool(fits)
    is_step = flags.mode == "step" or config.kind in REMEMBERING
    steps = None if is_step else flags.steps(package.n_action_steps, package.chunk_size)
    has_rtc = takes_prefix(config.kind, flags, is_step=is_step) and switch_on(package.policy, flags)
    spec = PolicySpec(
        f"lerobot {config.kind}",
        {
            **{names.client[one.name]: leaf_of(one, None, is_resized=is_resized) for one in config.features},
            **{names.client[text]: task_spec() for text in _texts(config)},
            **(rtc_leaves(steps or 1, config.action.shape[0]) if has_rtc else {}),
        },
        ArraySpec(config.action.shape, doc="action as recorded: units of the dataset"),
        horizon=steps,
        max_batch=1 if config.kind in REMEMBERING else flags.max_batch or _BATCH[device.type],
        metadata={
            "lerobot": {"type": config.kind, "layout": "package", "mode": "step" if is_step else "chunk"},
            **(rtc_facts(METHOD) if has_rtc else {}),
            "backend": "lerobot",
            "device": str(device),
        },
        aliases=names.aliases,
    )
    if config.kind in REMEMBERING:
        return RememberingPolicy(package, spec, known, fits)
    noise = noise_of(flags.seed, (1, package.chunk_size, package.noise_width))
    asking = Asking(package, noise, None, known, fits=fits)
    if is_step:
        return StepPolicy(asking, spec, (1,), n_action_steps=package.n_action_steps)
    if has_rtc:
        return PrefixChunkPolicy(package, asking, spec, (1,))
    return ChunkPolicy(asking, spec, (1,))


def _texts(config: PolicyConfig) -> tuple[str, ...]:
    return () if config.kind in _WITHOUT_TASK else (TASK,)


def _also(config: PolicyConfig) -> Mapping[str, str]:
    return {"prompt": TASK} if _texts(config) else {}


class _Package:
    """A policy of the package with its processors: a Model whose actions are in physical units.

    draws: 1 where the policy takes noise from outside, so that each session's is its own; else 0.
    """

    def __init__(self, config: PolicyConfig, device: str, on_stage: OnStage) -> None:
        factory = import_module("lerobot.policies.factory")
        configs = import_module("lerobot.configs.policies")
        on_stage("loading the weights")
        own = configs.PreTrainedConfig.from_pretrained(str(config.folder))
        own.device = device
        self.policy: Any = factory.get_policy_class(config.kind).from_pretrained(str(config.folder), config=own)
        self.policy.to(device)
        self.policy.eval()
        overrides = {"device_processor": {"device": device}}
        self._before, self._after = factory.make_pre_post_processors(
            own, pretrained_path=str(config.folder), preprocessor_overrides=overrides
        )
        self._config = config
        self.chunk_size: int = getattr(own, "chunk_size", 1)
        self.n_action_steps: int = getattr(own, "n_action_steps", 1)
        self.noise_width: int = getattr(own, "max_action_dim", config.action.shape[0])
        ask = getattr(self.policy, "predict_action_chunk", None)
        self.draws = int(ask is not None and "noise" in inspect.signature(ask).parameters)

    def __call__(self, rows: Sequence[Row], noise: Array | None) -> Array:
        """A chunk for each row's one frame, (B, actions, action) float32."""
        return self.chunks(rows, noise, None)

    def chunks(self, rows: Sequence[Row], noise: Array | None, prefixes: Sequence[Prefix] | None) -> Array:
        """The same, that agree with prefixes, which are all of one length, delay and end; None: there are none."""
        torch = import_module("torch")
        left = None if prefixes is None else np.stack([one.rows[: one.known] for one in prefixes])
        batch = self.prepared([row[-1] for row in rows], left)
        device = next(self.policy.parameters()).device
        given: dict[str, Any] = {} if noise is None else {"noise": torch.from_numpy(noise[:, 0]).to(device)}
        if prefixes is not None:
            given.update(arguments_of(prefixes, batch.pop(ACTION)))
        # Guidance differentiates, which tensors of inference_mode() refuse.
        with torch.inference_mode() if prefixes is None else torch.no_grad():
            return self.physical(self.policy.predict_action_chunk(batch, **given))

    def prepared(self, frames: Sequence[Frame], actions: Array | None = None) -> Any:
        """What the package's own steps make of some observations, stacked, and of actions (B, n, action)."""
        torch = import_module("torch")
        batch: dict[str, Any] = {}
        for one in self._config.features:
            values = [frame[one.name] for frame in frames]
            if one.kind == VISUAL:
                values = [_as_float(as_last(picture, one.shape)).transpose(2, 0, 1) for picture in values]
            batch[one.name] = torch.from_numpy(np.ascontiguousarray(np.stack(values)))
        batch[TASK] = [frame.get(TASK, "") for frame in frames]
        if actions is not None:
            batch[ACTION] = torch.from_numpy(actions)
        return self._before(batch)

    def physical(self, actions: Any) -> Array:
        """Un-normalised actions, as an array of NumPy's."""
        return self._after(actions).float().cpu().numpy()


def _as_float(picture: Array) -> Array:
    return picture.astype(np.float32) / np.float32(255.0 if picture.dtype == np.uint8 else 1.0)


class RememberingPolicy:
    """Answers one step at a time by select_action(); what the policy remembers is swapped in and out for each session.

    That are the attributes which the policy's reset() makes anew: queues of frames and actions, plans, caches.
    """

    def __init__(self, package: _Package, spec: PolicySpec, names: Mapping[str, str], fits: Mapping[str, Fit]) -> None:
        self.spec, self.buckets = spec, (1,)
        self._package, self._names, self._fits = package, names, fits
        self._remembered = _set_by_reset(package.policy)

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [self._answer(one) for one in batch]

    def close(self) -> None:
        """Let go of the network."""
        vars(self).pop("_package", None)

    def _answer(self, one: PolicyInput) -> ActionChunk:
        package, policy = self._package, self._package.policy
        policy.reset()
        for name, value in (one.state or {}).items():
            setattr(policy, name, copy.deepcopy(value))  # a batch may be tried again from the same state
        frame = framed(one, self._names, self._fits)
        with import_module("torch").inference_mode():
            action = package.physical(policy.select_action(package.prepared([frame])))
        return ActionChunk(action[0], {name: getattr(policy, name) for name in self._remembered})


def _set_by_reset(policy: Any) -> list[str]:
    """The names of the attributes that a policy's reset() sets, whether they change by it or not."""
    names: list[str] = []
    kind: Any = type(policy)

    def noted(self: Any, name: str, value: Any) -> None:
        names.append(name)
        kind.__setattr__(self, name, value)

    policy.__class__ = type(kind.__name__, (kind,), {"__setattr__": noted})
    try:
        policy.reset()
    finally:
        policy.__class__ = kind
    return list(dict.fromkeys(names))
