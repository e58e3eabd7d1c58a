"""From a zip of Stable-Baselines3 to a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import BadObservation, PolicyserveError
from policyserve.core.log import Log
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.policies.mlp import limit_blas_threads
from policyserve.policies.naming import client_names
from policyserve.policies.quickness import is_quick
from policyserve.policies.sb3.architecture import Network, build_network, family_of
from policyserve.policies.sb3.archive import Archive, read_archive
from policyserve.policies.sb3.checkpoints import step_of
from policyserve.policies.sb3.features import SINGLE, as_channels_first, choices_of
from policyserve.policies.sb3.heads import action_spec
from policyserve.policies.sb3.lstm import Lstm
from policyserve.policies.sb3.spaces import Box, Dict, Discrete, Leaf
from policyserve.policies.sb3.vecnormalize import find_statistics, read_statistics
from policyserve.policies.sniffing import read_head
from policyserve.policies.stacked import StackedPolicy

log = Log(__name__)

_MAX_BATCH = 64
_MAX_CLIENT_BATCH = 16_384


def load_sb3(
    path: str | Path,
    *,
    vecnormalize: str | None = None,
    max_batch: int | None = None,
    threads: int | None = None,
    renames: Mapping[str, str] | None = None,
) -> Policy:
    """Load a zip that `model.save()` wrote; it answers what `model.predict(…, deterministic=True)` answers.

    vecnormalize: a file of VecNormalize's statistics, or "none"; None takes one that lies beside the zip. max_batch:
    None is 64. threads: of the process's matrix products; None is 1. renames: of an observation's keys, client's name
    -> the policy's. Raises ConfigError for what is not read here, with the path and the part of the file.
    """
    file = find_zip(path)
    read_head(str(file))
    archive = read_archive(file)
    family = family_of(archive)
    statistics = find_statistics(file, vecnormalize)
    normalizers = {} if statistics is None else read_statistics(statistics, archive.observation)
    if statistics is not None:
        told = "normalised by" if normalizers else "not normalised (norm_obs is off) in"
        log.info("%s: observations are %s %s", file.name, told, statistics)
    network = build_network(archive, family, normalizers)
    if isinstance(archive.action, Discrete) and archive.action.start:
        told = "%s: its actions begin at %d; Stable-Baselines3 trains and predicts from 0, and so this answers"
        log.warning(told, file.name, archive.action.start)
    algorithm = family.name or archive.algorithm
    spec, own_names = _spec(archive, bool(normalizers), renames or {}, max_batch or _MAX_BATCH)
    metadata = {
        "algorithm": algorithm,
        "stable_baselines3": archive.version,
        "normalised_by": statistics.name if statistics is not None and normalizers else "",
        **({} if step_of(file) is None else {"checkpoint_step": step_of(file)}),
    }
    spec = replace(spec, name=f"{algorithm or 'SB3'} {file.stem}", metadata=metadata)
    limit_blas_threads(threads or 1)
    policy = _policy(network, archive.observation, spec, own_names)
    if is_quick(policy):
        policy = _policy(network, archive.observation, replace(spec, inline=True), own_names)
    return policy


def find_zip(path: str | Path) -> Path:
    """The file that a path means: Stable-Baselines3 takes `model` for model.zip, where there is no other `model`."""
    file = Path(path).expanduser()
    packed = file.with_name(f"{file.name}.zip")
    return packed if not file.exists() and packed.is_file() else file


def _policy(network: Network, space: Leaf | Dict, spec: PolicySpec, own_names: Mapping[str, str]) -> Policy:
    if network.lstm is None:
        policy: Policy = StackedPolicy(lambda observation: _answer(network, _renamed(observation, own_names)), spec)
    else:
        policy = RecurrentPolicy(network, network.lstm, replace(spec, max_client_batch=0), own_names, _pictures(space))
    leaves = _leaves(space)
    choices = {key: choices_of(leaves[own]) for key, own in own_names.items() if choices_of(leaves[own])}
    return ChoosingPolicy(policy, choices) if choices else policy


def _answer(network: Network, observation: Mapping[str, Any]) -> Array:
    """(N, …) of each key to (N, *action)."""
    with np.errstate(all="ignore"):  # huge observations overflow as they do in torch: to inf, not to warnings
        rows = network.features(observation)
        # A vector takes half the time of a matrix of one row.
        return network.head(network.body(rows[0] if len(rows) == 1 else rows))


class RecurrentPolicy:
    """A policy with an LSTM, whose state is each session's own: zeros where a session begins.

    pictures: the shapes (C, H, W) of those that clients may also send with their channels last, by own name.
    """

    def __init__(
        self,
        network: Network,
        lstm: Lstm,
        spec: PolicySpec,
        own_names: Mapping[str, str],
        pictures: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.spec = spec
        self._network, self._lstm, self._own_names, self._pictures = network, lstm, own_names, pictures

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        stacked = {
            own: self._stack([one.observation[key] for one in batch], own) for key, own in self._own_names.items()
        }
        states = [self._lstm.begin() if one.state is None else one.state for one in batch]
        with np.errstate(all="ignore"):
            rows, states = self._lstm.step(self._network.features(stacked), states)
            actions = self._network.head(self._network.body(rows))
        return [ActionChunk(actions[row, ...], state) for row, state in enumerate(states)]

    def close(self) -> None:
        """Nothing to release."""

    def _stack(self, values: list[Array], own: str) -> Array:
        shape = self._pictures.get(own)
        return np.stack(values if shape is None else [as_channels_first(value, shape) for value in values])


class ChoosingPolicy:
    """A policy that is never asked about a choice that does not exist: such an input alone is refused.

    choices: by the key of an observation, how many each of its numbers has.
    """

    def __init__(self, policy: Policy, choices: Mapping[str, tuple[int, ...]]) -> None:
        self.spec = policy.spec
        self._policy, self._choices = policy, choices

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
        refused = [self._refusal(one) for one in batch]
        fine = [one for one, error in zip(batch, refused, strict=True) if error is None]
        answers = iter(self._policy.infer(fine) if fine else ())
        return [next(answers) if error is None else error for error in refused]

    def close(self) -> None:
        self._policy.close()

    def _refusal(self, one: PolicyInput) -> BadObservation | None:
        for key, counts in self._choices.items():
            value = one.observation[key]
            wrong = (value < 0) | (value >= (np.array(counts) if len(counts) > 1 else max(counts)))
            if wrong.any():
                most = ", ".join(str(count - 1) for count in counts[:20])
                return BadObservation(key, f"whole numbers from 0 to {most}", f"{value[wrong].flat[0]}")
        return None


def _spec(
    archive: Archive, is_normalised: bool, renames: Mapping[str, str], max_batch: int
) -> tuple[PolicySpec, Mapping[str, str]]:
    """The spec, and the policy's own name of each of its keys."""
    leaves = _leaves(archive.observation)
    names = client_names(list(leaves), renames)
    raw = "" if is_normalised else "raw: no VecNormalize file was found, or none was wanted"
    observation = {names.client[own]: _leaf_spec(leaf, raw) for own, leaf in leaves.items()}
    spec = PolicySpec(
        "SB3",
        observation,
        action_spec(archive.action),
        max_batch=max_batch,
        max_client_batch=_MAX_CLIENT_BATCH,
        dialect="vibe_rl" if len(observation) == 1 else None,  # whose clients send one array
        aliases=names.aliases,
    )
    return spec, {client: own for own, client in names.client.items()}


def _leaf_spec(space: Leaf, raw: str) -> ArraySpec | ImageSpec:
    if isinstance(space, Box):
        if space.is_image and space.shape[0] == 3:
            return ImageSpec(space.shape[1], space.shape[2], ("CHW", "HWC"))
        return ArraySpec(space.shape, space.dtype.name, raw)
    choices = choices_of(space)
    if not choices:
        return ArraySpec(space.shape, "int8", "each 0 or 1")
    told = f"0 … {choices[0] - 1}" if not space.shape else f"each from 0, below {', '.join(map(str, choices[:20]))}"
    return ArraySpec(space.shape, "int64", told)


def _leaves(space: Leaf | Dict) -> Mapping[str, Leaf]:
    return space.spaces if isinstance(space, Dict) else {SINGLE: space}


def _pictures(space: Leaf | Dict) -> Mapping[str, tuple[int, ...]]:
    return {key: leaf.shape for key, leaf in _leaves(space).items() if isinstance(leaf, Box) and leaf.is_image}


def _renamed(observation: Mapping[str, Any], own_names: Mapping[str, str]) -> Mapping[str, Any]:
    return {own: observation[key] for key, own in own_names.items()}
