"""Which network acts: where each class of policies keeps it in its state dict, and what its settings mean for it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policyserve.core.errors import ConfigError, names_told
from policyserve.policies.mlp import ACTIVATIONS, Activation, Layer, Rows, mlp
from policyserve.policies.sb3.archive import Archive
from policyserve.policies.sb3.features import Extract, Features, features_of
from policyserve.policies.sb3.heads import Head, head_of, outputs_of
from policyserve.policies.sb3.lstm import Lstm, read_lstm
from policyserve.policies.sb3.pickles import told_of
from policyserve.policies.sb3.spaces import Box, Discrete
from policyserve.policies.sb3.weights import Weights

_ONNX = "export it to ONNX and serve the .onnx file, see docs/sb3.md"


@dataclass(frozen=True)
class Family:
    """One class of policies, by the names of its weights.

    features: of the extractor; the first that is there counts. hidden: Sequentials, an activation behind each layer.
    head: the last layer; where it ends with a dot it is the last of such a Sequential. ignored: what learning needs.
    """

    features: tuple[str, ...]
    hidden: tuple[str, ...]
    head: str
    ignored: tuple[str, ...]
    activation: str = "ReLU"
    lstm: str = ""
    is_squashed: bool = False
    averages_quantiles: bool = False
    name: str = ""


@dataclass(frozen=True, eq=False)
class Network:
    """The network that acts. body: from features, or from the LSTM behind them, to what the head reads."""

    features: Features
    lstm: Lstm | None
    body: Rows
    head: Head


_ON_POLICY = Family(
    features=("pi_features_extractor.", "features_extractor."),
    hidden=("mlp_extractor.shared_net.", "mlp_extractor.policy_net."),
    head="action_net",
    ignored=("features_extractor.", "vf_features_extractor.", "mlp_extractor.value_net.", "value_net.", "log_std"),
    activation="Tanh",
)
_SAC = Family(
    features=("actor.features_extractor.",),
    hidden=("actor.latent_pi.",),
    head="actor.mu",
    ignored=("actor.log_std", "critic.", "critic_target."),
    is_squashed=True,
)
_FAMILIES: Mapping[str, Family] = {
    "stable_baselines3.common.policies": _ON_POLICY,
    "sb3_contrib.common.recurrent.policies": Family(
        features=_ON_POLICY.features,
        hidden=_ON_POLICY.hidden,
        head="action_net",
        ignored=(*_ON_POLICY.ignored, "lstm_critic.", "critic."),
        activation="Tanh",
        lstm="lstm_actor.",
        name="RecurrentPPO",
    ),
    "stable_baselines3.sac.policies": _SAC,
    "sb3_contrib.tqc.policies": _SAC,
    "stable_baselines3.td3.policies": Family(
        features=("actor.features_extractor.",),
        hidden=(),
        head="actor.mu.",
        ignored=("actor_target.", "critic.", "critic_target."),
        is_squashed=True,
    ),
    "stable_baselines3.dqn.policies": Family(
        features=("q_net.features_extractor.",), hidden=(), head="q_net.q_net.", ignored=("q_net_target.",)
    ),
    "sb3_contrib.qrdqn.policies": Family(
        features=("quantile_net.features_extractor.",),
        hidden=(),
        head="quantile_net.quantile_net.",
        ignored=("quantile_net_target.",),
        averages_quantiles=True,
        name="QRDQN",
    ),
}
_CURES = {
    "sb3_contrib.common.maskable.policies": "MaskablePPO, whose masks no observation has here",
    "sb3_contrib.ars.policies": "ARS",
    "sb3_contrib.crossq.policies": "CrossQ",
}
_EXTRACTORS = ("FlattenExtractor", "NatureCNN", "CombinedExtractor")
_CLASS = re.compile(r"<class '([\w.]+)'>", re.ASCII)
# Settings of a policy that are known here; those that change what it answers are read below.
_KWARGS = frozenset(
    {
        "net_arch", "activation_fn", "ortho_init", "use_sde", "log_std_init", "full_std", "use_expln", "squash_output",
        "features_extractor_class", "features_extractor_kwargs", "share_features_extractor", "normalize_images",
        "optimizer_class", "optimizer_kwargs", "n_critics", "clip_mean", "n_quantiles", "lstm_hidden_size",
        "n_lstm_layers", "shared_lstm", "enable_critic_lstm", "lstm_kwargs", "sde_net_arch", ":type:", ":serialized:",
    }
)  # fmt: skip


def family_of(archive: Archive) -> Family:
    """The archive's class of policies; raises ConfigError for one that is not Stable-Baselines3's own, or not known."""
    family = _FAMILIES.get(archive.policy_module)
    if family is not None:
        return family
    got = _CURES.get(archive.policy_module, f"a policy of {archive.policy_module:.80}")
    expected = "PPO, A2C, SAC, TD3, DDPG, DQN, TQC, TRPO, QRDQN or RecurrentPPO"
    raise ConfigError(f"{archive.told}: policy_class: expected one of {expected}, got {got}: {_ONNX}")


def build_network(archive: Archive, family: Family, normalizers: Mapping[str, Extract]) -> Network:
    """The network of an archive; raises ConfigError for weights that do not fit, or that nobody expects.

    normalizers: what observations go through first, by their keys.
    """
    _check_kwargs(archive)
    weights = Weights(archive.weights, archive.told)
    prefix = next((one for one in family.features if weights.has(one)), family.features[-1])
    features, width = features_of(
        archive.observation,
        weights,
        prefix,
        divides_images=archive.kwargs.get("normalize_images") is not False,
        normalizers=normalizers,
    )
    lstm = read_lstm(weights, family.lstm, width) if family.lstm else None
    layers, clip = _layers(weights, family, archive, lstm.size if lstm else width)
    _check_outputs(layers[-1], family, archive)
    if family.averages_quantiles:
        layers[-1] = _averaged(layers[-1], outputs_of(archive.action))
    weights.check_all_taken(family.ignored)
    head = head_of(archive.action, _is_squashed(archive, family), clip)
    return Network(features, lstm, mlp(layers, _activation(archive, family)), head)


def _is_squashed(archive: Archive, family: Family) -> bool:
    return family.is_squashed or archive.kwargs.get("squash_output") is True


def _layers(weights: Weights, family: Family, archive: Archive, width: int) -> tuple[list[Layer], float | None]:
    """All layers behind the features, the last one being the head's; and what its numbers are clipped to."""
    layers: list[Layer] = []
    for prefix in family.hidden:
        layers += weights.sequence(prefix, len(layers[-1].bias) if layers else width)
    inputs = len(layers[-1].bias) if layers else width
    if family.head.endswith("."):
        layers += weights.sequence(family.head, inputs)
        if not layers:
            raise ConfigError(f"{archive.told}: expected {family.head}0.weight in policy.pth, got none")
        return layers, None
    # Generalised state-dependent exploration has a Hardtanh behind the last layer, and so a Sequential of the two.
    is_clipped = weights.has(f"{family.head}.0.")
    layers.append(weights.layer(f"{family.head}.0" if is_clipped else family.head, inputs))
    return layers, _clip_mean(archive) if is_clipped else None


def _check_outputs(last: Layer, family: Family, archive: Archive) -> None:
    """Raise ConfigError for a last layer that is not of the action space."""
    wanted, found = outputs_of(archive.action), len(last.bias)
    needs = Box if family.is_squashed else Discrete if family.head.startswith(("q_net", "quantile")) else object
    if not isinstance(archive.action, needs):
        raise ConfigError(f"{archive.told}: action_space: expected a {needs.__name__}, got {archive.action}")
    if isinstance(archive.action, Box) and _is_squashed(archive, family) and not archive.action.is_bounded:
        raise ConfigError(
            f"{archive.told}: action_space: expected finite bounds, which tanh is rescaled to, got others"
        )
    if found != wanted and not (family.averages_quantiles and found % wanted == 0):
        raise ConfigError(f"{archive.told}: {family.head}: expected {wanted} outputs for {archive.action}, got {found}")


def _averaged(last: Layer, actions: int) -> Layer:
    """The layer that gives the mean over the quantiles of each action, which are (quantiles, actions)."""
    weight = last.weight.reshape(-1, actions, last.weight.shape[1]).mean(0)
    return Layer(weight, last.bias.reshape(-1, actions).mean(0))


def _check_kwargs(archive: Archive) -> None:
    unknown = [name for name in archive.kwargs if name not in _KWARGS]
    if unknown:
        raise ConfigError(
            f"{archive.told}: policy_kwargs: {names_told(unknown)}: expected settings that are known here"
        )
    described = archive.kwargs.get("features_extractor_class")
    if described is not None and _class_in(described, "stable_baselines3.common.torch_layers") not in _EXTRACTORS:
        expected = ", ".join(_EXTRACTORS)
        told = f"{archive.told}: features_extractor_class: expected one of {expected}"
        raise ConfigError(f"{told}, got {told_of(described)}: {_ONNX}")


def _activation(archive: Archive, family: Family) -> Activation:
    described = archive.kwargs.get("activation_fn")
    name = family.activation if described is None else _class_in(described, "torch.nn.modules.activation")
    if name not in ACTIVATIONS:
        expected = ", ".join(ACTIVATIONS)
        raise ConfigError(
            f"{archive.told}: activation_fn: expected one of {expected}, got {told_of(described)}: {_ONNX}"
        )
    return ACTIVATIONS[name]


def _class_in(described: Any, module: str) -> str:
    """The name of a class of a module; empty for any other."""
    found = _CLASS.fullmatch(described) if isinstance(described, str) else None
    place, _, name = found[1].rpartition(".") if found else ("", "", "")
    return name if place == module else ""


def _clip_mean(archive: Archive) -> float:
    value = archive.kwargs.get("clip_mean", 2.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigError(f"{archive.told}: clip_mean: expected a number above 0, got {told_of(value)}")
    return float(value)
