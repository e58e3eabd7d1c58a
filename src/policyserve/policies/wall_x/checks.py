"""What every Wall-X model refuses in an observation, whatever its checkpoint: the model and its stand-in ask here."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import BadObservation
from policyserve.policies.wall_x.prompt import ACTION, IMAGE, PROPRIOCEPTION

MAX_LENGTH = 2048  # tokens of one observation; training cut longer ones, which would cut the action tokens

# What the tokenizers of all published checkpoints take for one token: Qwen2.5's own, and those that training added.
_STRUCTURE = (IMAGE, PROPRIOCEPTION, ACTION)
_SPECIAL_TOKENS = re.compile(
    r"<\|(endoftext|im_start|im_end|(object_ref|box|quad|vision)_(start|end)|(vision|image|video|fim)_pad"
    r"|fim_(prefix|middle|suffix)|repo_name|file_sep|propri|action)\|>|</?tool_call>"
)
_ACTION_TOKEN = re.compile(r"<\|action_token_\d+\|>")


def check_finite(numbers: Array, path: str) -> None:
    """Raise BadObservation for NaN and Inf."""
    if not np.isfinite(numbers).all():
        raise BadObservation(path, "finite numbers", "NaN or Inf")


def read_state(state: Any, state_dim: int, *, allow_missing: bool = False) -> Array | None:
    """The robot's state, (state_dim,) float32; None where there is none and that is allowed. Raises BadObservation."""
    if state is None:
        if allow_missing:
            return None
        raise BadObservation("state", describe("float32", (state_dim,)), "none")
    numbers = np.asarray(state, np.float32)
    if numbers.shape != (state_dim,):
        raise BadObservation("state", describe("float32", (state_dim,)), describe("float32", numbers.shape))
    check_finite(numbers, "state")
    return numbers


def check_length(length: int) -> None:
    """Raise BadObservation for more tokens than a model takes."""
    if length > MAX_LENGTH:
        got = f"{length} with the images and the text around it"
        raise BadObservation("prompt", f"at most {MAX_LENGTH} tokens", got, "shorten the text, or send smaller images")


def check_unicode(task: str) -> None:
    """Raise BadObservation for a text that has no UTF-8."""
    try:
        task.encode()
    except UnicodeError as error:
        raise BadObservation("prompt", "a text of Unicode characters", "half of a surrogate pair") from error


def check_without_tokenizer(task: str, *, has_action_tokens: bool, allow_special_tokens: bool) -> None:
    """Raise BadObservation for the special tokens that every Wall-X tokenizer has; with one, that one decides.

    has_action_tokens: whether the model writes its actions as tokens, which are special then.
    """
    found = [match.group() for match in _SPECIAL_TOKENS.finditer(task)]
    found += [match.group() for match in _ACTION_TOKEN.finditer(task)] if has_action_tokens else []
    for token in found:
        if token in _STRUCTURE or not allow_special_tokens:
            raise special_token(token)


def special_token(token: str) -> BadObservation:
    """The refusal of a prompt that holds this token."""
    return BadObservation("prompt", "a text without special tokens", f"{token} in it", "leave it out")
