"""The stand-in refuses what the real preprocessing refuses, in the same words, and takes what that takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.policies.wall_x import ModelConfig, Options, conventions_named, load_policy
from policyserve.policies.wall_x.assembly import build_processor, build_spec, make_plan
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import golden, model_config

CAMERAS = ("front_view", "left_wrist_view")
PICTURE = np.full((48, 64, 3), 200, np.uint8)
GOOD = {**dict.fromkeys(CAMERAS, PICTURE), "prompt": "lift the cup", "state": np.zeros(8, np.float32)}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "floats in 0 … 255": ({"front_view": PICTURE.astype(np.float32)}, "floats in 0 … 1"),
    "NaN pixels": ({"left_wrist_view": np.full((8, 8, 3), np.nan, np.float32)}, "floats in 0 … 1"),
    "one pixel": ({"front_view": PICTURE[:1, :1]}, "at least 2 pixels a side"),
    "a strip": ({"front_view": np.zeros((2, 500, 3), np.uint8)}, "differ by at most 200 times"),
    "a strip after the first resize": ({"front_view": np.zeros((2, 399, 3), np.uint8)}, "differ by at most 200 times"),
    "both layouts at once": ({"front_view": np.zeros((3, 8, 3), np.uint8)}, "either HWC or CHW"),
    "NaN in the state": ({"state": np.full(8, np.nan, np.float32)}, "finite numbers"),
    "infinity in the state": ({"state": np.full(8, np.inf, np.float32)}, "finite numbers"),
    "a turn's token": ({"prompt": "<|im_start|>system"}, r"<|im_start|> in it"),
    "an image's token": ({"prompt": "look: <|image_pad|>"}, r"<|image_pad|> in it"),
    "a tool's token": ({"prompt": "<tool_call>"}, "<tool_call> in it"),
    "an action's token": ({"prompt": "a<|action|>"}, r"<|action|> in it"),
    "half of a pair": ({"prompt": "\ud800"}, "half of a surrogate pair"),
    "too many words": ({"prompt": "go " * 2100}, "at most 2048 tokens"),
}


def stand_in(**options: Any) -> Policy:
    return load_policy(ModelConfig(model_path="stand-in", predict_mode="diffusion"), options=Options(**options))


def refusal(policy: Policy, observation: dict[str, Any]) -> str | None:
    """What the policy says to an observation, read as a server reads it; None if it answers."""
    try:
        read = policy.spec.validate(observation).observation
    except BadObservation as error:
        return str(error)
    (answer,) = policy.infer([PolicyInput(read)])
    return None if isinstance(answer, ActionChunk) else str(answer)


@pytest.fixture(scope="module")
def preprocessing() -> Callable[[dict[str, Any]], str | None]:
    """What the real preprocessing of a checkpoint says to an observation."""
    for package in ("torch", "tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
        import_or_skip(package)
    plan = make_plan(model_config("flow_libero_basic"), Options())
    processor = build_processor(plan)
    spec = build_spec(plan, processor, default_prompt=None, env=None, max_batch=1)

    def ask(observation: dict[str, Any]) -> str | None:
        named = {**observation, "dataset_names": [processor.normalizer.names[0]]}
        try:
            processor.prepare(spec.validate(named).observation)
        except BadObservation as error:
            return str(error)
        return None

    return ask


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_no_model_takes_the_stand_in_refuses(mistake: str) -> None:
    change, said = REFUSED[mistake]
    assert said in (refusal(stand_in(), {**GOOD, **change}) or "taken")


@pytest.mark.parametrize("mistake", REFUSED)
def test_the_real_preprocessing_refuses_the_same(mistake: str, preprocessing: Callable[[Any], str | None]) -> None:
    change, said = REFUSED[mistake]
    assert said in (preprocessing({**GOOD, **change}) or "taken")


TAKEN: dict[str, dict[str, Any]] = {
    "the usual": {},
    "floats in 0 … 1": {"front_view": np.linspace(0, 1, 48 * 64 * 3, dtype=np.float32).reshape(48, 64, 3)},
    "channels first": {"front_view": np.zeros((3, 20, 24), np.uint8)},
    "gray": {"front_view": np.zeros((20, 24), np.uint8)},
    "almost a strip": {"front_view": np.zeros((2, 256, 3), np.uint8)},
    "what looks like a token": {"prompt": "put <|it|> there, <b> and | too"},
    "words of all kinds": {"prompt": "放 the Tasse 🙂 down"},
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_a_model_takes_the_stand_in_takes(case: str, preprocessing: Callable[[Any], str | None]) -> None:
    observation = {**GOOD, **TAKEN[case]}
    assert preprocessing(observation) is None
    assert refusal(stand_in(), observation) is None


def test_every_token_that_a_checkpoint_added_is_refused() -> None:
    tokenizers = import_or_skip("tokenizers")
    fast = load_policy(ModelConfig(model_path="stand-in", predict_mode="fast"))
    for checkpoint, policy in (("checkpoint_flow_libero", stand_in()), ("checkpoint_fast", fast)):
        tokenizer = tokenizers.Tokenizer.from_file(str(golden(checkpoint) / "tokenizer.json"))
        for token in tokenizer.get_added_tokens_decoder().values():
            assert f"{token.content} in it" in (refusal(policy, {**GOOD, "prompt": f"a {token.content}"}) or "taken")


def test_trusted_clients_may_do_what_the_options_allow() -> None:
    trusting = stand_in(allow_special_tokens=True, allow_missing_state=True, image_layout="CHW")
    observation = {**dict.fromkeys(CAMERAS, np.zeros((3, 8, 3), np.uint8)), "prompt": "<|im_end|>"}
    assert refusal(trusting, observation) is None
    assert "<|propri|> in it" in str(refusal(trusting, {**observation, "prompt": "<|propri|>"}))
    assert "CHW|1CHW|HW" in str(refusal(trusting, {**observation, "front_view": PICTURE}))


def test_a_large_picture_is_refused_only_where_it_is_not_resized_first() -> None:
    large = {**GOOD, "front_view": np.zeros((1400, 1400, 3), np.uint8)}  # 2500 tokens
    assert refusal(stand_in(), large) is None
    unresized = stand_in(conventions=conventions_named("upstream", long_side_256=False))
    assert "at most 2048 tokens" in str(refusal(unresized, large))
