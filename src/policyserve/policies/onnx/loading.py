"""Makes a policy of an ONNX file: opens it, decides what is what, derives the spec, and tries it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.core.leaf_specs import ArraySpec, ImageSpec, LeafSpec
from policyserve.core.log import Log
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.core.recipe import OnStage
from policyserve.core.spec import PolicySpec
from policyserve.policies.naming import Names, client_names
from policyserve.policies.onnx.flags import OnnxFlags
from policyserve.policies.onnx.metadata import action_doc, observation_doc, read_metadata
from policyserve.policies.onnx.opening import Model, open_model, said_by
from policyserve.policies.onnx.policy import Convert, Graph, RememberingPolicy, action_dtype
from policyserve.policies.onnx.roles import Roles, Tensor, find_roles
from policyserve.policies.pictures import check_pictures, native_image
from policyserve.policies.quickness import is_quick
from policyserve.policies.stacked import StackedPolicy
from policyserve.policies.trying import TriedPolicy, answers, drawn, is_same_in_a_batch

log = Log(__name__)

_MAX_BATCH = 64
_MAX_CLIENT_BATCH = 1024
_TOLERANCE = 1e-4  # between a row alone and in a batch, beside what float32 rounds


@dataclass(frozen=True)
class _Opened:
    """A model with what was decided about it."""

    file: str
    model: Model
    flags: OnnxFlags
    roles: Roles
    names: Names


def load_onnx(file: str, flags: OnnxFlags, on_stage: OnStage) -> Policy:
    """The policy of an ONNX file; raises ConfigError, and MissingDependency without onnxruntime."""
    on_stage("opening the model")
    policy = _made(file, flags)
    on_stage("warming up")
    if is_quick(policy):
        policy.spec = replace(policy.spec, inline=True)
    return policy


def check_onnx(file: str, flags: OnnxFlags) -> None:
    """Raise what load_onnx() would raise, before a port is opened."""
    _made(file, flags)


def _made(file: str, flags: OnnxFlags) -> Policy:
    model = open_model(file, flags.device, flags.threads)
    try:
        return _tried(_decided(file, model, flags))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _decided(file: str, model: Model, flags: OnnxFlags) -> _Opened:
    roles = find_roles(model.inputs, model.outputs, flags.action, flags.state)
    own = [one.name for one in roles.inputs]
    check_pictures(flags.pictures, own)
    others = [] if roles.counter is None else [roles.counter.name]
    return _Opened(file, model, flags, roles, client_names(own, flags.renames, others=others))


def _tried(opened: _Opened) -> Policy:
    """The policy, once it has answered zeros; raises ConfigError for what it cannot answer."""
    found = _answer(opened, _policy(opened, _probe_spec(opened)), _probe_spec(opened).example())
    policy = _policy(opened, _spec(opened, found.actions))
    if opened.roles.batching == "stacked" and policy.spec.max_batch > 1 and not is_same_in_a_batch(policy, _TOLERANCE):
        log.warning("%s answers otherwise in a batch than alone: its rows run one by one", opened.file)
        return _tried(replace(opened, roles=replace(opened.roles, batching="one")))
    if not np.isfinite(found.actions).all():
        _check_answers(opened, policy)
        log.warning("%s answers NaN or Inf to zeros, and is not warmed up", opened.file)
        return TriedPolicy(policy, ())
    # Of rows that run one by one a larger batch has nothing to warm up.
    return policy if opened.roles.batching == "stacked" else TriedPolicy(policy, (1,))


def _check_answers(opened: _Opened, policy: Policy) -> None:
    """Raise ConfigError for a model that answers nothing else than NaN or Inf."""
    if not any(np.isfinite(_answer(opened, policy, one).actions).all() for one in drawn(policy.spec)):
        raise ConfigError("it answers NaN or Inf whatever it is given: export it again, or look at its training")


def _policy(opened: _Opened, spec: PolicySpec) -> Policy:
    roles = opened.roles
    told = roles.extras if opened.flags.extras == "all" else ()
    graph = Graph(opened.model.session, roles, opened.names.client, _converts(opened), spec.horizon, told)
    if roles.remembers or told:
        return RememberingPolicy(graph, replace(spec, max_client_batch=0))
    return StackedPolicy(graph.forward, spec)


def _converts(opened: _Opened) -> dict[str, Convert]:
    found: dict[str, Convert] = {}
    for one in opened.roles.inputs:
        picture = opened.flags.pictures.get(one.name)
        if picture is not None:
            found[one.name] = picture.converter(opened.roles.row_shape(one), one.dtype)
    return found


def _probe_spec(opened: _Opened) -> PolicySpec:
    """A spec before the model has answered: of a chunk it is not known how long it is."""
    return PolicySpec(
        Path(opened.file).stem or "onnx",
        observation=dict(_leaves(opened)),
        action=None,
        max_batch=opened.flags.max_batch or _MAX_BATCH,
        max_client_batch=_MAX_CLIENT_BATCH,
        aliases=opened.names.aliases,
    )


def _leaves(opened: _Opened) -> Iterator[tuple[str, LeafSpec]]:
    roles, names = opened.roles, opened.names
    metadata = read_metadata(opened.model.metadata)
    for one in roles.inputs:
        doc = observation_doc(metadata) if len(roles.inputs) == 1 else ""
        yield names.client[one.name], _leaf(opened, one, doc)
    if roles.counter is not None:
        shape = roles.row_shape(roles.counter)
        doc = "where it is not sent: how many requests this session has made before"
        yield names.client[roles.counter.name], ArraySpec(shape, roles.counter.dtype, doc, optional=True)


def _leaf(opened: _Opened, one: Tensor, doc: str) -> LeafSpec:
    shape = opened.roles.row_shape(one)
    picture = opened.flags.pictures.get(one.name)
    if picture is not None:
        return picture.spec(one.name, shape)
    image: ImageSpec | None = native_image(shape, one.dtype, doc)
    return image or ArraySpec(shape, one.dtype, doc)


def _spec(opened: _Opened, actions: Array) -> PolicySpec:
    """The spec, now that the shape of its actions is known."""
    metadata = read_metadata(opened.model.metadata)
    is_chunk = actions.ndim > 1
    flags, dtype = opened.flags, action_dtype(opened.roles.action)
    if not is_chunk and flags.horizon not in (None, "all"):
        raise ConfigError(f"--horizon: {opened.roles.action} is one action and no chunk of several")
    steps = flags.steps(actions.shape[0], actions.shape[0]) if is_chunk else None
    if 0 in actions.shape:
        raise ConfigError(f"{opened.roles.action}: expected an action, got none: its shape is {actions.shape}")
    shape = _free_sizes(opened.roles, actions.shape)
    if is_chunk and shape[0] is None:
        raise ConfigError(f"{opened.roles.action}: a chunk whose length depends on the observation; export it with one")
    about = {"backend": "onnxruntime", "device": opened.model.device}
    return replace(
        _probe_spec(opened),
        action=ArraySpec(shape[1:] if is_chunk else shape, dtype, action_doc(metadata)),
        horizon=steps,
        metadata={**metadata, **about},
    )


def _free_sizes(roles: Roles, found: tuple[int, ...]) -> tuple[int | None, ...]:
    """The shape of the action: None for a size that the file leaves free, where an observation's may differ, too."""
    if not any(None in roles.row_shape(one) for one in roles.inputs):
        return found
    declared = roles.row_shape(roles.action)
    return declared if len(declared) == len(found) else found


def _answer(opened: _Opened, policy: Policy, observation: Mapping[str, Any]) -> ActionChunk:
    """What it answers one observation; raises ConfigError."""
    try:
        chunk = answers(policy, [PolicyInput(observation)])[0]
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        free = [str(one) for one in opened.roles.inputs if None in opened.roles.row_shape(one)]
        cure = (
            f"; it leaves sizes free, {', '.join(free)}, and was tried with 8: export it with its sizes" if free else ""
        )
        raise ConfigError(f"it cannot answer an observation of zeros: {said_by(error)}{cure}") from error
    pairs = opened.roles.pairs
    states = () if chunk.state is None else chunk.state.states
    for pair, state in zip(pairs, states, strict=True):
        if state.shape != pair.row_shape:
            told = f"{pair.into} and {pair.out}: expected what comes out to have the shape of what goes in"
            raise ConfigError(f"{told}, got {state.shape}; name the pairs with --state in=out, or say none")
    return chunk
