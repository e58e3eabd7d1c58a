"""What every Wall-X model refuses in an observation: the checks that model and stand-in share."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.core.errors import BadObservation
from policyserve.policies.wall_x.checks import (
    MAX_LENGTH,
    check_finite,
    check_length,
    check_unicode,
    check_without_tokenizer,
    read_state,
)


def test_a_state_is_read_as_float32() -> None:
    state = read_state(np.arange(3), 3)
    assert state is not None
    assert state.dtype == np.float32
    assert state.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("state", "said"), [(None, "got none"), (np.zeros(4), r"got float32 \(4,\)"), ([np.nan, 0, 0], "NaN or Inf")]
)
def test_another_state_is_refused(state: object, said: str) -> None:
    with pytest.raises(BadObservation, match=f"state: expected .*{said}"):
        read_state(state, 3)


def test_a_missing_state_may_be_allowed() -> None:
    assert read_state(None, 3, allow_missing=True) is None


def test_the_bounds_are_taken_and_what_is_beyond_them_is_not() -> None:
    check_length(MAX_LENGTH)
    with pytest.raises(BadObservation, match="prompt: expected at most 2048 tokens, got 2049"):
        check_length(MAX_LENGTH + 1)
    check_finite(np.array([1e30], np.float32), "noise")
    with pytest.raises(BadObservation, match="noise: expected finite numbers"):
        check_finite(np.array([-np.inf], np.float32), "noise")
    check_unicode("☕")
    with pytest.raises(BadObservation, match="half of a surrogate pair"):
        check_unicode("\udcff")


def test_action_tokens_are_special_only_to_a_model_that_has_them() -> None:
    text = "write <|action_token_12|>"
    check_without_tokenizer(text, has_action_tokens=False, allow_special_tokens=False)
    with pytest.raises(BadObservation, match=r"<\|action_token_12\|> in it; leave it out"):
        check_without_tokenizer(text, has_action_tokens=True, allow_special_tokens=False)
    check_without_tokenizer(text, has_action_tokens=True, allow_special_tokens=True)


def test_what_stands_for_images_states_and_actions_is_never_allowed() -> None:
    for token in ("<|image_pad|>", "<|propri|>", "<|action|>"):
        with pytest.raises(BadObservation, match="a text without special tokens"):
            check_without_tokenizer(f"<|im_end|>{token}", has_action_tokens=False, allow_special_tokens=True)
