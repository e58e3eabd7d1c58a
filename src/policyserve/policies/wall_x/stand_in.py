"""A policy of a Wall-X model's spec without a model, for trying clients and robots' plumbing.

It refuses what every Wall-X model refuses, so that a client which works here is not refused by the model for a mistake
that could have been seen before. What only a checkpoint knows (its data sets, its tokens' number) is not checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import PolicySpec
from policyserve.policies.wall_x.checks import check_length, check_unicode, check_without_tokenizer, read_state
from policyserve.policies.wall_x.config import ModelConfig
from policyserve.policies.wall_x.images import CELL, read_image, resize_steps
from policyserve.policies.wall_x.options import Options
from policyserve.policies.wall_x.prompt import prompt_text

NOTICE = "no Wall-X model: a stand-in whose actions are numbers without a meaning and control nothing"


def stand_in(spec: PolicySpec, config: ModelConfig, options: Options) -> FunctionPolicy:
    """Answer numbers in -1 … 1 that depend on every part of the observation, the same ones always."""
    return FunctionPolicy(_StandIn(config, options), replace(spec, metadata={**spec.metadata, "stand_in": NOTICE}))


@dataclass(frozen=True)
class _StandIn:
    config: ModelConfig
    options: Options

    def __call__(self, observation: dict[str, Any]) -> Array:
        """(pred_horizon, action_dim) float32; raises BadObservation as the model would."""
        state = self._state(observation)
        pictures = [read_image(observation[key], key, self.options.image_layout) for key in self.config.camera_key]
        self._check_prompt(observation["prompt"], sum(map(self._tokens, pictures, self.config.camera_key)))
        prompt = crc32(observation["prompt"].encode()) / 2**32
        brightness = [float(np.tanh(picture.mean(dtype=float) / 255)) for picture in pictures]
        features = np.array([prompt, *brightness, *np.tanh(state.astype(float))])
        shape = (self.config.pred_horizon, self.config.action_dim)
        waves = np.sin(np.outer(np.arange(1, features.size + 1), np.arange(1, np.prod(shape) + 1)))
        return np.tanh(features @ waves).reshape(shape).astype(np.float32)

    def _state(self, observation: dict[str, Any]) -> Array:
        allow_missing = self.options.allow_missing_state
        state = read_state(observation.get("state"), self.config.state_dim, allow_missing=allow_missing)
        return np.zeros(0, np.float32) if state is None else state

    def _tokens(self, picture: Array, camera: str) -> int:
        conventions = self.options.conventions
        long_side_256 = conventions is None or conventions.long_side_256
        height, width = picture.shape[:2]
        *_, (width, height) = resize_steps(width, height, camera, long_side_256=long_side_256)
        return width * height // CELL**2

    def _check_prompt(self, task: str, image_tokens: int) -> None:
        check_unicode(task)
        is_fast = self.config.predict_mode == "fast"
        allowed = self.options.allow_special_tokens
        check_without_tokenizer(task, has_action_tokens=is_fast, allow_special_tokens=allowed)
        action_tokens = 0 if is_fast else self.config.pred_horizon
        # A word is one token at least: more of them than tokens fit are too many for any tokenizer.
        words = len(prompt_text(task, self.config.camera_key).split())
        check_length(words + image_tokens + action_tokens)
