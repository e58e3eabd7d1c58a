"""Makes a policy of a torch program: looks at the file, loads it, derives the spec, and tries it out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.leaf_specs import ArraySpec, LeafSpec
from policyserve.core.log import Log
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.core.recipe import OnStage
from policyserve.core.spec import PolicySpec
from policyserve.policies.naming import Names, client_names
from policyserve.policies.pictures import check_pictures, native_image
from policyserve.policies.quickness import is_quick
from policyserve.policies.stacked import StackedPolicy
from policyserve.policies.torch_device import find_device
from policyserve.policies.torch_files.archive import TorchFile, read_torch_file
from policyserve.policies.torch_files.flags import TorchFlags
from policyserve.policies.torch_files.policy import Asking, RememberingPolicy
from policyserve.policies.torch_files.sizes import Input, sized
from policyserve.policies.trying import TriedPolicy, answers, drawn, is_same_in_a_batch

if TYPE_CHECKING:
    from policyserve.policies.torch_files.programs import Program

log = Log(__name__)

_SMALL = 1 << 20  # bytes of a file, below which one thread is quicker than several, and a CPU than a GPU
_MAX_BATCH = 64
_MAX_CLIENT_BATCH = 1024
_TOLERANCE = 1e-5  # between a row alone and in a batch
_PROGRAM = "it is a program, which runs on this computer with your rights: serve only files that you made or trust"


@dataclass(frozen=True)
class _Opened:
    """A program with what was decided about it."""

    file: TorchFile
    program: Program
    flags: TorchFlags
    names: Names


def check_torch(file: str, flags: TorchFlags) -> None:
    """Find what is wrong with a file without running it; raises ConfigError, and MissingDependency without torch."""
    _looked_at(file, flags)


def load_torch(file: str, flags: TorchFlags, on_stage: OnStage) -> Policy:
    """The policy of a program, which is run for it; raises ConfigError, and MissingDependency without torch."""
    found, inputs = _looked_at(file, flags)
    log.warning("%s: %s; --isolate process keeps what it breaks from the server", file, _PROGRAM)
    on_stage("loading the program")
    try:
        policy = _tried(_opened(found, inputs, flags))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    on_stage("warming up")
    if is_quick(policy):
        policy.spec = replace(policy.spec, inline=True)
    return policy


def _looked_at(file: str, flags: TorchFlags) -> tuple[TorchFile, tuple[Input, ...]]:
    """What a file is, and the inputs that are known without torch: TorchScript's, by its code and --obs."""
    found = read_torch_file(file)
    try:
        inputs = _known_inputs(found, flags)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if find_spec("torch") is None:
        raise MissingDependency("torch", "torch")
    return found, inputs


def _known_inputs(found: TorchFile, flags: TorchFlags) -> tuple[Input, ...]:
    if found.kind == "export":
        if flags.obs is not None:
            raise ConfigError("--obs is for TorchScript: a .pt2 has the sizes of its inputs")
        return ()
    inputs = sized(found.takes, flags.sizes, found.width)
    _named(inputs, flags)
    return inputs


def _named(inputs: tuple[Input, ...], flags: TorchFlags) -> Names:
    own = [one.name for one in inputs]
    check_pictures(flags.pictures, own)
    return client_names(own, flags.renames)


def _opened(file: TorchFile, inputs: tuple[Input, ...], flags: TorchFlags) -> _Opened:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported: see lerobot/loading.py
    import torch

    from policyserve.policies.torch_files import programs

    is_small = file.size < _SMALL
    if flags.threads is not None or is_small:
        torch.set_num_threads(flags.threads or 1)
    device = find_device("cpu" if flags.device == "auto" and is_small else flags.device)
    action = flags.action
    program = (
        programs.open_script(file, inputs, device, action) if inputs else programs.open_export(file, device, action)
    )
    return _Opened(file, program, flags, _named(program.inputs, flags))


def _tried(opened: _Opened) -> Policy:
    """The policy, once it has answered; raises ConfigError for what it cannot answer."""
    program, probe = opened.program, _probe_spec(opened)
    _find_states(opened, probe)
    found = _answer(_policy(opened, probe), probe.example()).actions
    policy = _policy(opened, _spec(opened, found))
    may_stack = not program.states and program.batching == "stacked" and policy.spec.max_batch > 1
    if may_stack and not is_same_in_a_batch(policy, _TOLERANCE):
        log.warning("%s answers otherwise in a batch than alone: its rows run one by one", opened.file.told)
        program.batching = "one"
    if not np.isfinite(found).all():
        log.warning("%s answers NaN or Inf to zeros, and is not warmed up", opened.file.told)
        if not any(np.isfinite(_answer(policy, one).actions).all() for one in drawn(policy.spec)):
            raise ConfigError("it answers NaN or Inf whatever it is given: export it again, or look at its training")
        return TriedPolicy(policy, ())
    # Of rows that run one by one a larger batch has nothing to warm up.
    return policy if program.batching == "stacked" and not program.states else TriedPolicy(policy, (1,))


def _find_states(opened: _Opened, spec: PolicySpec) -> None:
    """Have the program find what its calls change; raises ConfigError where it cannot be called."""
    asking = _asking(opened, None)
    try:
        opened.program.find_states([asking.row(one) for one in (*drawn(spec), spec.example())])
    except ConfigError:
        raise
    except Exception as error:  # a program raises what it likes
        raise _unanswered(opened, error) from error


def _unanswered(opened: _Opened, error: Exception) -> ConfigError:
    from policyserve.policies.torch_files.programs import said_by

    cure = "" if opened.file.kind == "export" else "; is --obs what it was trained with?"
    return ConfigError(f"it cannot answer an observation of {_told(opened)}: {said_by(error)}{cure}")


def _told(opened: _Opened) -> str:
    return ", ".join(f"{key} {leaf}" for key, leaf in _leaves(opened).items())


def _answer(policy: Policy, observation: Mapping[str, Any]) -> ActionChunk:
    return answers(policy, [PolicyInput(observation)])[0]


def _asking(opened: _Opened, steps: int | None) -> Asking:
    client, pictures = opened.names.client, opened.flags.pictures
    converts = {
        client[one.name]: pictures[one.name].converter(one.shape, one.dtype)
        for one in opened.program.inputs
        if one.name in pictures
    }
    return Asking(opened.program, [client[one.name] for one in opened.program.inputs], converts, steps)


def _policy(opened: _Opened, spec: PolicySpec) -> Policy:
    asking = _asking(opened, spec.horizon)
    if opened.program.states:
        return RememberingPolicy(asking, replace(spec, max_client_batch=0))
    return StackedPolicy(asking.forward, spec)


def _leaves(opened: _Opened) -> dict[str, LeafSpec]:
    return {opened.names.client[one.name]: _leaf(opened, one) for one in opened.program.inputs}


def _leaf(opened: _Opened, one: Input) -> LeafSpec:
    picture = opened.flags.pictures.get(one.name)
    if picture is not None:
        return picture.spec(one.name, one.shape)
    return native_image(one.shape, one.dtype, "") or ArraySpec(one.shape, one.dtype)


def _probe_spec(opened: _Opened) -> PolicySpec:
    """A spec before the program has answered."""
    most = opened.program.most
    wanted = opened.flags.max_batch or min(_MAX_BATCH, most or _MAX_BATCH)
    if most is not None and wanted > most and opened.program.batching == "stacked":
        raise ConfigError(f"--max-batch: expected at most {most}, which the program was exported with, got {wanted}")
    return PolicySpec(
        opened.file.path.stem or "torch",
        observation=_leaves(opened),
        action=None,
        max_batch=wanted,
        max_client_batch=_MAX_CLIENT_BATCH,
        aliases=opened.names.aliases,
    )


def _spec(opened: _Opened, actions: Array) -> PolicySpec:
    """The spec, now that the shape of its actions is known."""
    is_chunk, flags = actions.ndim > 1, opened.flags
    if not is_chunk and flags.horizon not in (None, "all"):
        raise ConfigError(f"--horizon: it answers one action {actions.shape} and no chunk of several")
    if 0 in actions.shape:
        raise ConfigError(f"expected an action, got none: its shape is {actions.shape}")
    steps = flags.steps(actions.shape[0], actions.shape[0]) if is_chunk else None
    about = {"backend": "torch", "device": str(opened.program.device), "format": opened.file.title}
    return replace(
        _probe_spec(opened),
        action=ArraySpec(actions.shape[1:] if is_chunk else actions.shape, actions.dtype.name),
        horizon=steps,
        metadata=about,
    )
