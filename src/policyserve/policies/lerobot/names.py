"""Every weight of ACT's and Diffusion's networks by its name in LeRobot's files, with its shape.

So a checkpoint is checked from its header alone. What is in a file and not here is refused, but for what training alone
needs: ACT's encoder of actions, counters of batches, and statistics, which are read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.config import ActConfig, DiffusionConfig, PolicyConfig
from policyserve.policies.lerobot.layout import WEIGHTS
from policyserve.policies.lerobot.statistics import LEGACY
from policyserve.policies.safetensors_files import FLOATS, StoredTensor

Shape: TypeAlias = tuple[int, ...]
Named: TypeAlias = Iterator[tuple[str, Shape]]

_UNUSED = ("model.vae_encoder", *LEGACY)
_COUNTER = ".num_batches_tracked"
_NAMED = 3  # tensors that an error names

_STEM = 64  # channels of a ResNet's first layer, and of its first stage
_EXPANSION = 4  # of a bottleneck's last convolution
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_GROUP_NORM = ("weight", "bias")
# Blocks of each of the four stages, and whether these are bottlenecks.
STAGES: Mapping[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}


def check_weights(config: PolicyConfig, stored: Mapping[str, StoredTensor]) -> dict[str, Shape]:
    """The weights that the network has; raises ConfigError naming the first that are missing, strange or misshapen."""
    wanted = dict(weights_of(config))
    missing = [name for name in wanted if name not in stored]
    strange = [
        name for name in stored if name not in wanted and not name.startswith(_UNUSED) and not name.endswith(_COUNTER)
    ]
    faults = [f"{name} {wanted[name]} is missing" for name in missing[:_NAMED]]
    faults += [f"{name:.80} {stored[name].shape} is not expected" for name in strange[:_NAMED]]
    misfits = [name for name, shape in wanted.items() if name in stored and stored[name].shape != shape]
    faults += [f"{name}: expected {wanted[name]}, got {stored[name].shape}" for name in misfits[:_NAMED]]
    others = [name for name in wanted if name in stored and stored[name].dtype not in FLOATS]
    faults += [f"{name}: expected {', '.join(FLOATS)}, got {stored[name].dtype}" for name in others[:_NAMED]]
    if faults:
        count = len(missing) + len(strange) + len(misfits) + len(others)
        told = f"{count} tensors do not fit config.json's {config.kind}"
        raise ConfigError(f"{config.folder / WEIGHTS}: {told}: {'; '.join(faults)}")
    return wanted


def weights_of(config: PolicyConfig) -> Named:
    """Every weight that is loaded, with its shape."""
    network = config.network
    if isinstance(network, ActConfig):
        return _act(config, network)
    assert isinstance(network, DiffusionConfig)
    return _diffusion(config, network)


def _act(config: PolicyConfig, act: ActConfig) -> Named:
    width = act.width
    yield from _linear("model.encoder_latent_input_proj", act.latent, width)
    tokens = 1
    for name, feature in (("robot", config.state), ("env", config.environment)):
        if feature is not None:
            tokens += 1
            yield from _linear(f"model.encoder_{name}_state_input_proj", feature.shape[0], width)
    yield "model.encoder_1d_feature_pos_embed.weight", (tokens, width)
    if config.images:
        yield from _resnet("model.backbone.", ACT_LAYERS, act.backbone, _BATCH_NORM)
        yield from _convolution("model.encoder_img_feat_input_proj", resnet_width(act.backbone), width, (1, 1))
    for index in range(act.encoder_layers):
        yield from _layer(f"model.encoder.layers.{index}.", act, ("self_attn",))
    if act.pre_norm:
        yield from _norm("model.encoder.norm", width)
    for index in range(act.decoder_layers):
        yield from _layer(f"model.decoder.layers.{index}.", act, ("self_attn", "multihead_attn"))
    yield from _norm("model.decoder.norm", width)
    yield "model.decoder_pos_embed.weight", (act.chunk_size, width)
    yield from _linear("model.action_head", width, config.action.shape[0])


def _layer(prefix: str, act: ActConfig, attentions: Sequence[str]) -> Named:
    width = act.width
    for name in attentions:
        yield f"{prefix}{name}.in_proj_weight", (3 * width, width)
        yield f"{prefix}{name}.in_proj_bias", (3 * width,)
        yield from _linear(f"{prefix}{name}.out_proj", width, width)
    yield from _linear(f"{prefix}linear1", width, act.inner)
    yield from _linear(f"{prefix}linear2", act.inner, width)
    for index in range(1, len(attentions) + 2):
        yield from _norm(f"{prefix}norm{index}", width)


def _diffusion(config: PolicyConfig, diffusion: DiffusionConfig) -> Named:
    norm = _GROUP_NORM if diffusion.has_group_norm else _BATCH_NORM
    for prefix in camera_prefixes(config, diffusion):
        yield from _resnet(f"{prefix}backbone.", DIFFUSION_LAYERS, diffusion.backbone, norm)
        points, keypoints = resnet_width(diffusion.backbone), diffusion.keypoints
        yield from _convolution(f"{prefix}pool.nets", points, keypoints, (1, 1))
        yield f"{prefix}pool.pos_grid", (_cells(config, diffusion), 2)
        yield from _linear(f"{prefix}out", 2 * keypoints, 2 * keypoints)
    yield from _unet(config, diffusion)


def camera_prefixes(config: PolicyConfig, diffusion: DiffusionConfig) -> list[str]:
    """What the names of each image encoder's weights begin with: one for all cameras, or one each."""
    if not config.images:
        return []
    if not diffusion.encoder_per_camera:
        return ["diffusion.rgb_encoder."]
    return [f"diffusion.rgb_encoder.{index}." for index in range(len(config.images))]


def _cells(config: PolicyConfig, diffusion: DiffusionConfig) -> int:
    """Of the map that a ResNet makes of an image: a cell of a side for each 32 pixels or part of them."""
    height, width = diffusion.crop or diffusion.resize or config.images[0].shape[1:]
    return -(-height // 32) * -(-width // 32)


def _unet(config: PolicyConfig, diffusion: DiffusionConfig) -> Named:
    prefix, widths, kernel = "diffusion.unet.", diffusion.widths, diffusion.kernel
    step = diffusion.step_width
    yield from _linear(f"{prefix}diffusion_step_encoder.1", step, 4 * step)
    yield from _linear(f"{prefix}diffusion_step_encoder.3", 4 * step, step)
    condition = step + config.n_obs_steps * frame_width(config, diffusion)

    def block(name: str, before: int, after: int) -> Named:
        yield from _conv_block(f"{prefix}{name}.conv1", before, after, kernel)
        yield from _conv_block(f"{prefix}{name}.conv2", after, after, kernel)
        yield from _linear(f"{prefix}{name}.cond_encoder.1", condition, (1 + diffusion.film_scales) * after)
        if before != after:
            yield from _convolution(f"{prefix}{name}.residual_conv", before, after, (1,))

    action = config.action.shape[0]
    for index, (before, after) in enumerate(zip((action, *widths), widths, strict=False)):
        yield from block(f"down_modules.{index}.0", before, after)
        yield from block(f"down_modules.{index}.1", after, after)
        if index < len(widths) - 1:
            yield from _convolution(f"{prefix}down_modules.{index}.2", after, after, (3,))
    for index in range(2):
        yield from block(f"mid_modules.{index}", widths[-1], widths[-1])
    for index, (after, before) in enumerate(zip(widths[-2::-1], widths[:0:-1], strict=True)):
        yield from block(f"up_modules.{index}.0", 2 * before, after)
        yield from block(f"up_modules.{index}.1", after, after)
        yield f"{prefix}up_modules.{index}.2.weight", (after, after, 4)
        yield f"{prefix}up_modules.{index}.2.bias", (after,)
    yield from _conv_block(f"{prefix}final_conv.0", widths[0], widths[0], kernel)
    yield from _convolution(f"{prefix}final_conv.1", widths[0], action, (1,))


def frame_width(config: PolicyConfig, diffusion: DiffusionConfig) -> int:
    """Numbers that stand for one frame of an observation: state, two for each keypoint of each image, environment."""
    vectors = sum(one.shape[0] for one in (config.state, config.environment) if one is not None)
    return vectors + len(config.images) * 2 * diffusion.keypoints


def _conv_block(name: str, before: int, after: int, kernel: int) -> Named:
    yield from _convolution(f"{name}.block.0", before, after, (kernel,))
    yield from _norm(f"{name}.block.1", after)


# A ResNet's parts as the two name them: ACT by torchvision's names, Diffusion by their place in a sequence.
ACT_LAYERS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
DIFFUSION_LAYERS = ("0", "1", "4", "5", "6", "7")


def resnet_width(backbone: str) -> int:
    """Channels of what a ResNet gives."""
    return 8 * _STEM * (_EXPANSION if STAGES[backbone][1] else 1)


def _resnet(prefix: str, layers: Sequence[str], backbone: str, norm: Sequence[str]) -> Named:
    stages, is_bottleneck = STAGES[backbone]
    stem, stem_norm, *names = layers
    yield f"{prefix}{stem}.weight", (_STEM, 3, 7, 7)
    yield from _norm(f"{prefix}{stem_norm}", _STEM, norm)
    before = _STEM
    for stage, (name, blocks) in enumerate(zip(names, stages, strict=True)):
        inner = _STEM << stage
        after = inner * (_EXPANSION if is_bottleneck else 1)
        for index in range(blocks):
            yield from _resnet_block(f"{prefix}{name}.{index}.", before, inner, after, norm, stage > 0 and index == 0)
            before = after


def _resnet_block(prefix: str, before: int, inner: int, after: int, norm: Sequence[str], strides: bool) -> Named:
    if after == inner:
        convolutions = ((before, inner, 3), (inner, inner, 3))
    else:
        convolutions = ((before, inner, 1), (inner, inner, 3), (inner, after, 1))
    for index, (start, end, kernel) in enumerate(convolutions, 1):
        yield f"{prefix}conv{index}.weight", (end, start, kernel, kernel)
        yield from _norm(f"{prefix}bn{index}", end, norm)
    if strides or before != after:
        yield f"{prefix}downsample.0.weight", (after, before, 1, 1)
        yield from _norm(f"{prefix}downsample.1", after, norm)


def _linear(name: str, before: int, after: int) -> Named:
    yield f"{name}.weight", (after, before)
    yield f"{name}.bias", (after,)


def _convolution(name: str, before: int, after: int, kernel: Shape) -> Named:
    yield f"{name}.weight", (after, before, *kernel)
    yield f"{name}.bias", (after,)


def _norm(name: str, width: int, parts: Sequence[str] = _GROUP_NORM) -> Named:
    for part in parts:
        yield f"{name}.{part}", (width,)
