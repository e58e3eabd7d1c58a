"""One observation, by the chosen conventions, to what the network takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import BadObservation
from policyserve.policies.prefix import Prefix, read_prefix
from policyserve.policies.wall_x.checks import check_finite, read_state
from policyserve.policies.wall_x.conventions import Conventions
from policyserve.policies.wall_x.images import ImageLayout, image_patches, read_image, resize_image
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.normalizer import Normalizer
from policyserve.policies.wall_x.tokens import PromptTokens

_PATCHES_PER_TOKEN = 4


@dataclass(frozen=True)
class Processor:
    """Prepares observations that meet the policy's spec.

    state_dim, action_dim: the robot's. state_width, action_width: the network's. flow: whether the answer is sampled,
    so that action tokens and noise are part of the input. takes_prefix: whether clients send what they will execute.
    """

    tokens: PromptTokens
    normalizer: Normalizer
    conventions: Conventions
    cameras: Sequence[str]
    horizon: int
    state_dim: int
    action_dim: int
    state_width: int
    action_width: int
    flow: bool
    seed: int = 0
    image_layout: ImageLayout = "any"
    allow_missing_state: bool = False
    takes_prefix: bool = False

    def prepare(self, observation: Mapping[str, Any], chunk: int = 0) -> ModelInput:
        """Prepare one observation; chunk: how many of its session came before, for the noise.

        Raises BadObservation with the path of what cannot be taken.
        """
        return self.with_noise(self.prepare_ahead(observation), chunk)

    def prepare_ahead(self, observation: Mapping[str, Any]) -> ModelInput:
        """prepare(), but for the noise of an observation that brings none of its own: that is its session's next."""
        dataset = self.normalizer.choose(observation.get("dataset_names"))
        state = self._state(observation.get("state"), dataset)
        prefix = read_prefix(observation) if self.takes_prefix else None
        patches, grids = self._images(observation)
        image_tokens = [rows * columns // _PATCHES_PER_TOKEN for rows, columns in grids]
        ids = self.tokens.prefix(observation["prompt"], image_tokens)
        if self.flow:
            ids = self.tokens.with_actions(ids, self.horizon, trailing=self.conventions.trailing_tokens)
        return ModelInput(
            input_ids=ids,
            patches=patches,
            grids=grids,
            state=state,
            state_mask=None if state is None else self._state_mask(),
            dof_mask=np.tile(_ones_until(self.action_dim, self.action_width), (self.horizon, 1)),
            noise=self._own_noise(observation.get("noise")) if self.flow else None,
            dataset=dataset,
            prefix=None if prefix is None else self._normalised(prefix, dataset),
            guided=None if prefix is None else self._guided(dataset),
        )

    def _normalised(self, prefix: Prefix, dataset: str) -> Prefix:
        """A prefix as the network has actions, not clamped: what the robot does may be beyond what was recorded."""
        rows = np.zeros_like(prefix.rows)
        rows[: prefix.known] = self.normalizer.action[dataset].normalise_unclamped(prefix.rows[: prefix.known])
        return prefix._replace(rows=rows)

    def _guided(self, dataset: str) -> Array:
        """(action_width,) float32: 1 for the numbers that clients get and that the statistics say something of."""
        guided = np.zeros(self.action_width, np.float32)
        guided[: self.action_dim] = self.normalizer.action[dataset].width[: self.action_dim] != 0
        return guided

    def with_noise(self, prepared: ModelInput, chunk: int) -> ModelInput:
        """Add the noise of a session's chunk, where sampling needs one and the observation brought none."""
        if not self.flow or prepared.noise is not None:
            return prepared
        noise = np.random.default_rng((self.seed, chunk)).standard_normal(self._noise_shape, np.float32)
        return replace(prepared, noise=noise)

    def _images(self, observation: Mapping[str, Any]) -> tuple[Array, tuple[tuple[int, int], ...]]:
        pieces: list[Array] = []
        grids: list[tuple[int, int]] = []
        for camera in self.cameras:
            picture = read_image(_at(observation, camera), camera, self.image_layout)
            resized = resize_image(picture, camera, long_side_256=self.conventions.long_side_256)
            patches, grid = image_patches(resized)
            pieces.append(patches)
            grids.append(grid)
        return np.concatenate(pieces), tuple(grids)

    def _state(self, state: Any, dataset: str) -> Array | None:
        """(state_width,) float32, zeros behind the robot's own numbers."""
        numbers = read_state(state, self.state_dim, allow_missing=self.allow_missing_state)
        if numbers is None:
            return None
        padded = np.zeros(self.state_width, np.float32)
        padded[: self.state_dim] = numbers
        if self.conventions.state == "raw":
            return padded
        scale = self.normalizer.state[dataset]
        scaled = scale.normalise(padded[: scale.low.size])
        return np.concatenate([scaled, padded[scale.low.size :]]).astype(np.float32)

    def _state_mask(self) -> Array:
        end = self.action_dim if self.conventions.state_mask_end == "action_dim" else self.state_dim
        return _ones_until(end, self.state_width)

    @property
    def _noise_shape(self) -> tuple[int, int]:
        return self.horizon, self.action_width

    def _own_noise(self, noise: Any) -> Array | None:
        """(horizon, action_width) float32, None if the observation has none."""
        if noise is None:
            return None
        numbers = np.asarray(noise, np.float32)
        if numbers.shape != self._noise_shape:
            raise BadObservation("noise", describe("float32", self._noise_shape), describe("float32", numbers.shape))
        check_finite(numbers, "noise")
        return numbers


def _at(observation: Mapping[str, Any], path: str) -> Any:
    """A camera's image; the spec's validation leaves it under its flat path."""
    if path not in observation:
        raise BadObservation(path, "an image", f"keys {', '.join(map(str, observation))}"[:300])
    return observation[path]


def _ones_until(end: int, width: int) -> Array:
    return (np.arange(width) < end).astype(np.float32)
