"""config.json of a LeRobot policy: its type, what it takes and gives, and the sizes of ACT's and Diffusion's networks.

A field that is missing is refused: LeRobot's defaults differ from version to version, and its files hold them all. The
few that a later version added mean, where they are missing, what the version before did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from policyserve.core.errors import ConfigError
from policyserve.policies.fields import Fields, read_object
from policyserve.policies.lerobot.layout import CONFIG

STATE, ENV, VISUAL, ACTION = "STATE", "ENV", "VISUAL", "ACTION"
STATE_KEY, ACTION_KEY = "observation.state", "action"
MODES = ("IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10")

_KINDS = (STATE, ENV, VISUAL, ACTION, "REWARD", "LANGUAGE")
_OLD = ("input_shapes", "output_shapes")
_MIGRATION = "python -m lerobot.processor.migrate_policy_normalization --pretrained-path FOLDER"

# What no weight's shape bounds, or what would only take long to refuse by one.
_MOST_LAYERS = 1000
_MOST_STEPS = 100_000  # of a schedule
_LONGEST = 4096  # actions of a chunk
_WIDEST = 16_384  # pixels of a side


@dataclass(frozen=True)
class Feature:
    """One value of an observation, or the action. shape: of an image (channels, height, width)."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ActConfig:
    """The sizes of an ACT network. ensemble: the coefficient of temporal ensembling; None: there is none."""

    chunk_size: int
    n_action_steps: int
    backbone: str
    is_dilated: bool
    pre_norm: bool
    width: int
    heads: int
    inner: int
    activation: str
    encoder_layers: int
    decoder_layers: int
    latent: int
    ensemble: float | None


@dataclass(frozen=True)
class ScheduleConfig:
    """How noise becomes actions. inference_steps: how often the network is asked."""

    kind: str
    train_steps: int
    inference_steps: int
    betas: str
    beta_start: float
    beta_end: float
    predicts: str
    clip: float | None


@dataclass(frozen=True)
class DiffusionConfig:
    """The sizes of a Diffusion network. chunk_size: its horizon, of which n_action_steps are executed."""

    chunk_size: int
    n_action_steps: int
    backbone: str
    resize: tuple[int, int] | None
    crop: tuple[int, int] | None
    has_group_norm: bool
    keypoints: int
    encoder_per_camera: bool
    widths: tuple[int, ...]
    kernel: int
    groups: int
    step_width: int
    film_scales: bool
    schedule: ScheduleConfig
    ensemble: float | None = field(default=None, init=False)


NetworkConfig: TypeAlias = ActConfig | DiffusionConfig


@dataclass(frozen=True)
class PolicyConfig:
    """A policy. network: None for a type that is not ours. modes: how each kind of feature is normalised."""

    folder: Path
    kind: str
    n_obs_steps: int
    features: tuple[Feature, ...]
    action: Feature
    modes: Mapping[str, str]
    network: NetworkConfig | None

    @property
    def images(self) -> tuple[Feature, ...]:
        return tuple(one for one in self.features if one.kind == VISUAL)

    @property
    def state(self) -> Feature | None:
        return next((one for one in self.features if one.kind == STATE and one.name == STATE_KEY), None)

    @property
    def environment(self) -> Feature | None:
        return next((one for one in self.features if one.kind == ENV), None)

    @property
    def used(self) -> tuple[Feature, ...]:
        """The features that our networks read; LeRobot's read no others either."""
        return tuple(one for one in self.features if one.kind == VISUAL or one in (self.state, self.environment))


def read_config(folder: Path) -> PolicyConfig:
    """Read config.json; raises ConfigError naming file and field."""
    path = folder / CONFIG
    values = read_object(path)
    fields = Fields(values, str(path))
    if "type" not in fields and any(name in values for name in _OLD):
        raise ConfigError(f"{path}: expected a policy of LeRobot 0.3.3 or later, got an older one; {_MIGRATION}")
    kind = fields.text("type")
    if fields.flag("use_peft", False):
        raise ConfigError(f"{path}: use_peft: the weights are an adapter of another model's; merge them into one first")
    inputs, outputs = _features(fields.section("input_features")), _features(fields.section("output_features"))
    config = PolicyConfig(
        folder=folder,
        kind=kind,
        n_obs_steps=fields.count("n_obs_steps", most=_MOST_LAYERS),
        features=inputs,
        action=_action(outputs, path),
        modes=_modes(fields.section("normalization_mapping")),
        network=_READERS[kind](fields) if kind in _READERS else None,
    )
    if config.network is not None:
        _check(config, fields)
    return config


def _features(section: Fields) -> tuple[Feature, ...]:
    return tuple(_feature(name, section.section(name)) for name in section.names())


def _feature(name: str, fields: Fields) -> Feature:
    kind, shape = fields.choice("type", _KINDS), fields.counts("shape")
    if kind == VISUAL and (len(shape) != 3 or shape[0] != 3 or not all(0 < side <= _WIDEST for side in shape[1:])):
        raise fields.fail("shape", f"3 channels, height and width of 1 … {_WIDEST}")
    return Feature(name, kind, shape)


def _action(outputs: tuple[Feature, ...], path: Path) -> Feature:
    found = [one for one in outputs if one.kind == ACTION]
    if len(found) != 1 or len(found[0].shape) != 1 or found[0].shape[0] < 1:
        told = ", ".join(f"{one.name} {one.kind} {one.shape}" for one in outputs) or "none"
        raise ConfigError(f"{path}: output_features: expected one ACTION of one dimension, got {told[:200]}")
    return found[0]


def _modes(section: Fields) -> dict[str, str]:
    return {name: section.choice(name, MODES) for name in section.names()}


def _read_act(fields: Fields) -> ActConfig:
    coefficient = fields.finite("temporal_ensemble_coeff") if "temporal_ensemble_coeff" in fields else None
    chunk_size = fields.count("chunk_size", most=_LONGEST)
    width = fields.count("dim_model")
    heads = fields.count("n_heads")
    fields.check_divides("n_heads", heads, "dim_model", width)
    return ActConfig(
        chunk_size=chunk_size,
        n_action_steps=fields.count("n_action_steps", most=chunk_size),
        backbone=fields.choice("vision_backbone", BACKBONES),
        is_dilated=bool(fields.get("replace_final_stride_with_dilation")),
        pre_norm=fields.flag("pre_norm"),
        width=width,
        heads=heads,
        inner=fields.count("dim_feedforward"),
        activation=fields.choice("feedforward_activation", ("relu", "gelu")),
        encoder_layers=fields.count("n_encoder_layers", most=_MOST_LAYERS),
        decoder_layers=fields.count("n_decoder_layers", most=_MOST_LAYERS),
        latent=fields.count("latent_dim"),
        ensemble=coefficient,
    )


def _read_diffusion(fields: Fields) -> DiffusionConfig:
    horizon = fields.count("horizon", most=_LONGEST)
    widths = fields.counts("down_dims")
    if not 0 < len(widths) <= 16 or 0 in widths:
        raise fields.fail("down_dims", "1 … 16 positive numbers")
    if horizon % 2 ** (len(widths) - 1):
        raise fields.fail("horizon", f"a multiple of {2 ** (len(widths) - 1)}, for {len(widths)} down_dims")
    kernel, groups = fields.count("kernel_size", most=_LONGEST), fields.count("n_groups")
    if kernel % 2 == 0:
        raise fields.fail("kernel_size", "an odd number")
    for width in widths:
        fields.check_divides("n_groups", groups, "each of down_dims", width)
    if widths[0] % LAST_GROUPS:
        raise fields.fail("down_dims", f"a first number that {LAST_GROUPS} divides, for the last layer's groups")
    step_width = fields.count("diffusion_step_embed_dim")
    if step_width < 4 or step_width % 2:
        raise fields.fail("diffusion_step_embed_dim", "an even number from 4")
    return DiffusionConfig(
        chunk_size=horizon,
        n_action_steps=fields.count("n_action_steps", most=horizon),
        backbone=fields.choice("vision_backbone", BACKBONES),
        resize=_sides(fields, "resize_shape"),
        crop=_crop(fields),
        has_group_norm=fields.flag("use_group_norm"),
        keypoints=fields.count("spatial_softmax_num_keypoints"),
        encoder_per_camera=fields.flag("use_separate_rgb_encoder_per_camera"),
        widths=widths,
        kernel=kernel,
        groups=groups,
        step_width=step_width,
        film_scales=fields.flag("use_film_scale_modulation"),
        schedule=_read_schedule(fields),
    )


def _read_schedule(fields: Fields) -> ScheduleConfig:
    train_steps = fields.count("num_train_timesteps", most=_MOST_STEPS)
    has_steps = "num_inference_steps" in fields
    return ScheduleConfig(
        kind=fields.choice("noise_scheduler_type", ("DDPM", "DDIM")),
        train_steps=train_steps,
        inference_steps=fields.count("num_inference_steps", most=train_steps) if has_steps else train_steps,
        betas=fields.choice("beta_schedule", ("squaredcos_cap_v2", "linear", "scaled_linear")),
        beta_start=fields.number("beta_start", 0.0),
        beta_end=fields.number("beta_end", 0.0),
        predicts=fields.choice("prediction_type", ("epsilon", "sample")),
        clip=fields.number("clip_sample_range", 0.0) if fields.flag("clip_sample") else None,
    )


def _sides(fields: Fields, name: str) -> tuple[int, int] | None:
    if name not in fields:
        return None
    height, width = fields.counts(name, length=2)
    if not (0 < height <= _WIDEST and 0 < width <= _WIDEST):
        raise fields.fail(name, f"height and width of 1 … {_WIDEST}")
    return height, width


def _crop(fields: Fields) -> tuple[int, int] | None:
    crop = _sides(fields, "crop_shape")
    if crop is None and "crop_ratio" in fields and fields.number("crop_ratio", 1.0) != 1.0:
        raise fields.fail("crop_ratio", "1, where crop_shape is null")
    return crop


def _check(config: PolicyConfig, fields: Fields) -> None:
    """Refuse what LeRobot's own networks cannot be built with, or fail at."""
    for one in config.used:
        if one.kind != VISUAL and (len(one.shape) != 1 or one.shape[0] < 1):
            raise ConfigError(f"{fields.where}: {one.name}: expected one dimension, got shape {one.shape}")
    if config.state is None:
        raise ConfigError(f"{fields.where}: input_features: expected {STATE_KEY}, which {config.kind} needs")
    if not config.images and config.environment is None:
        told = f"expected an image or an environment's state beside {STATE_KEY}, which {config.kind} needs"
        raise ConfigError(f"{fields.where}: input_features: {told}")
    network = config.network
    if isinstance(network, ActConfig):
        _check_act(config, network, fields)
    elif isinstance(network, DiffusionConfig):
        _check_diffusion(config, network, fields)


def _check_act(config: PolicyConfig, network: ActConfig, fields: Fields) -> None:
    if config.n_obs_steps != 1:
        raise fields.fail("n_obs_steps", "1, as ACT has it")
    if network.ensemble is not None and network.n_action_steps != 1:
        raise fields.fail("n_action_steps", "1 with temporal_ensemble_coeff, which asks at each step")
    if config.images and network.width % 4:
        raise fields.fail("dim_model", "a multiple of 4, for the positions in an image")
    if network.is_dilated and network.backbone in ("resnet18", "resnet34"):
        raise fields.fail("replace_final_stride_with_dilation", f"false, as {network.backbone} has no dilation")


def _check_diffusion(config: PolicyConfig, network: DiffusionConfig, fields: Fields) -> None:
    if config.n_obs_steps - 1 + network.n_action_steps > network.chunk_size:
        most = network.chunk_size - config.n_obs_steps + 1
        raise fields.fail("n_action_steps", f"at most {most}, which is horizon - n_obs_steps + 1")
    if len({one.shape for one in config.images}) > 1:
        told = ", ".join(f"{one.name} {one.shape}" for one in config.images)
        raise ConfigError(f"{fields.where}: input_features: expected images of one size, got {told[:200]}")
    if config.images and network.crop is not None:
        height, width = network.resize or config.images[0].shape[1:]
        if network.crop[0] > height or network.crop[1] > width:
            raise fields.fail("crop_shape", f"at most {height} x {width}, the image")


BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
LAST_GROUPS = 8  # of Diffusion's last block, whatever n_groups says
_READERS = {"act": _read_act, "diffusion": _read_diffusion}
NATIVE = tuple(_READERS)
