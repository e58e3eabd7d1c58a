"""Text and token ids, equal to the original's; what a prompt may not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation, ConfigError
from policyserve.policies.wall_x.checks import MAX_LENGTH
from policyserve.policies.wall_x.prompt import ACTION, prompt_text
from policyserve.policies.wall_x.tokens import PromptTokens, load_tokenizer, read_action_tokens
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import FAST_CASES, FLOW_CASES, facts, golden, tensors

import_or_skip("tokenizers")
CHECKPOINTS = ("checkpoint_flow_libero", "checkpoint_fast")


def prompt_tokens(cameras: list[str] | None = None, **options: Any) -> PromptTokens:
    return PromptTokens(load_tokenizer(golden("checkpoint_flow_libero")), cameras or ["front_view"], **options)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_every_text_becomes_the_originals_ids_and_comes_back(checkpoint: str) -> None:
    tokenizer = load_tokenizer(golden(checkpoint))
    cases = json.loads(golden("cases", "unit_tokenizer_public.json").read_text(encoding="utf-8"))["cases"]
    for case in cases[checkpoint]:
        assert tokenizer.encode(case["text"], add_special_tokens=False).ids == case["ids"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=False) == case["decoded"]


@pytest.mark.parametrize("name", FLOW_CASES)
def test_a_flow_cases_text_and_ids_are_the_originals(name: str) -> None:
    case, arrays = facts(name), tensors(name)
    horizon = case["pred_horizon"]
    assert prompt_text(case["prompt"], case["cams"]) + ACTION * horizon + "<|im_end|>\n" == case["text"]
    tokens = PromptTokens(load_tokenizer(golden(case["checkpoint"])), case["cams"], allow_special_tokens=True)
    image_tokens = [int(t * h * w) // 4 for t, h, w in arrays["pre/image_grid_thw"]]
    prefix = tokens.prefix(case["prompt"], image_tokens)
    np.testing.assert_array_equal(tokens.with_actions(prefix, horizon, trailing=True), arrays["pre/input_ids"][0])
    np.testing.assert_array_equal(
        tokens.with_actions(prefix, horizon, trailing=False),
        arrays["pre/input_ids"][0][: -len(case["trailing_tokens"])],
    )


@pytest.mark.parametrize("name", FAST_CASES)
def test_a_fast_cases_prompt_and_written_text_are_the_originals(name: str) -> None:
    case, arrays = facts(name), tensors(name)
    assert case["text"].startswith(prompt_text(case["prompt"], case["cams"]))
    tokens = PromptTokens(load_tokenizer(golden("checkpoint_fast")), case["cams"])
    image_tokens = [int(t * h * w) // 4 for t, h, w in arrays["pre/image_grid_thw"]]
    np.testing.assert_array_equal(tokens.prefix(case["prompt"], image_tokens), arrays["fast/prompt_ids"][0])
    assert tokens.text_of(arrays["fast/new_ids"].tolist()) == case["generated_text"]


@pytest.mark.parametrize(
    "text",
    ["<|image_pad|>", "<|action|>", "<|propri|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "a<|video_pad|>b"],
)
def test_a_task_with_a_special_token_is_refused(text: str) -> None:
    with pytest.raises(BadObservation, match=r"prompt: expected a text without special tokens, got <\|?[a-z_]+\|?>"):
        prompt_tokens().prefix(f"open {text} it", [81])


@pytest.mark.parametrize("text", ["<|image_pad|>", "<|action|>", "<|propri|>"])
def test_not_even_a_trusted_caller_brings_images_states_or_actions_in_a_task(text: str) -> None:
    with pytest.raises(BadObservation, match="without special tokens"):
        prompt_tokens(allow_special_tokens=True).prefix(text, [81])


@pytest.mark.parametrize("text", ["", "<", "<|im_start", "im_end|>", "a < b | c >", "\n", "\x00", "é" * 50])
def test_other_texts_are_taken(text: str) -> None:
    assert prompt_tokens().prefix(text, [4]).dtype == np.int64


def test_what_would_be_cut_is_refused() -> None:
    tokens = prompt_tokens()
    with pytest.raises(BadObservation, match=f"prompt: expected at most {MAX_LENGTH} tokens, got"):
        tokens.prefix("x" * 10_000, [81])
    room = MAX_LENGTH - tokens.prefix("", [81]).size
    fits = tokens.prefix("", [81 + room])
    assert fits.size == MAX_LENGTH
    with pytest.raises(BadObservation, match="2049"):
        tokens.prefix("", [82 + room])
    with pytest.raises(BadObservation, match=f"at most {MAX_LENGTH}"):
        tokens.with_actions(fits, 1, trailing=False)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(BadObservation, match="prompt: expected a text of Unicode characters"):
        prompt_tokens().prefix("a\ud800b", [4])


def test_the_same_prompt_is_encoded_once() -> None:
    counting = _Counting(load_tokenizer(golden("checkpoint_flow_libero")))
    tokens = PromptTokens(counting, ["front_view"])
    counting.encoded.clear()
    for _ in range(3):
        tokens.prefix("open the drawer", [4]).fill(0)
    assert len(counting.encoded) == 1
    assert tokens.prefix("open the drawer", [4]).any()


class _Counting:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.encoded: list[str] = []

    def encode(self, text: str, **options: Any) -> Any:
        self.encoded.append(text)
        return self._tokenizer.encode(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_tokens_that_training_added_are_added_where_the_processor_lacks_them(tmp_path: Path) -> None:
    content = json.loads((golden("checkpoint_flow_libero") / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 595]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = load_tokenizer(Path("/nowhere"), tmp_path, action_tokens=3)
    names = ["<|propri|>", "<|action|>", "<|action_token_0|>", "<|action_token_2|>"]
    assert [tokenizer.token_to_id(name) for name in names] == [595, 596, 597, 599]


def test_a_directory_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer: .*tokenizer.json and .*tokenizer.json do not exist"):
        load_tokenizer(tmp_path, tmp_path / "processor")
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer.json: expected a tokenizer"):
        load_tokenizer(tmp_path)


def test_the_action_tokens_place_comes_from_the_checkpoint() -> None:
    path = golden("checkpoint_fast")
    assert read_action_tokens(path, load_tokenizer(path)) == (597, 1024)
    with pytest.raises(ConfigError, match="has no action tokens"):
        read_action_tokens(golden("checkpoint_flow"), load_tokenizer(golden("checkpoint_flow")))


def test_the_tokenizer_decides_where_its_configuration_says_nothing_and_has_to_agree_where_it_does(
    tmp_path: Path,
) -> None:
    tokenizer = load_tokenizer(golden("checkpoint_fast"))
    assert read_action_tokens(tmp_path, tokenizer) == (597, 1024)
    (tmp_path / "tokenizer_config.json").write_text('{"action_token_start_index": 596}', encoding="utf-8")
    with pytest.raises(ConfigError, match="action_token_start_index: expected 597"):
        read_action_tokens(tmp_path, tokenizer)
