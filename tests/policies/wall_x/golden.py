"""Wall-X's golden cases: what the original computed with tiny checkpoints, and how to ask for the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policyserve.core.arrays import Array
from policyserve.policies.wall_x import Conventions, ModelConfig, Options
from tests.policies.frameworks import import_or_skip
from tests.shared import shared_path

FLOW_CASES = (
    "flow_libero_basic",
    "flow_libero_odd_sizes",
    "flow_libero_float_chw",
    "flow_libero_normstate_steps5_h10",
    "flow_unknown_camera_unicode",
    "flow_no_proprio",
    "flow_aloha_basic",
    "flow_mot_libero",
    "flow_pad20_libero",
    "flow_pad20_aloha",
)
FAST_CASES = ("fast_libero_1", "fast_libero_h10_textprefix", "fast_aloha_1", "fast_bad_length", "fast_no_eos_100")
UNDECODABLE = ("fast_bad_length", "fast_no_eos_100")
# What a client may send: no options for trusted callers, ten steps.
WIRE_CASES = (
    "flow_libero_basic",
    "flow_libero_odd_sizes",
    "flow_libero_float_chw",
    "flow_aloha_basic",
    "flow_mot_libero",
    "flow_pad20_libero",
    "flow_pad20_aloha",
    "fast_libero_1",
    "fast_libero_h10_textprefix",
    "fast_aloha_1",
)


def golden(*parts: str) -> Path:
    """A path of the golden data."""
    return shared_path("wall_x", "golden", *parts)


def tensors(name: str) -> dict[str, Array]:
    """A case's arrays."""
    return import_or_skip("safetensors.numpy").load_file(golden("cases", f"{name}.safetensors"))


def facts(name: str) -> dict[str, Any]:
    """A case's JSON."""
    return json.loads(golden("cases", f"{name}.json").read_text(encoding="utf-8"))


def modes(name: str) -> list[str]:
    """The attention modes that a flow case has results for."""
    return ["upstream_sdpa"] if name == "flow_mot_libero" else ["upstream_sdpa", "bidir_island", "causal"]


def conventions(name: str, attention: str = "upstream_sdpa") -> Conventions:
    """The conventions that a case was made with."""
    case = facts(name)
    padded = case.get("pad20", False) or case["kind"] == "fast"
    return Conventions(
        attention=attention,  # type: ignore[arg-type]
        state="normalised" if case.get("normalise_state") else "raw",
        state_mask_end="state_dim" if padded else "action_dim",
        padding="20" if padded else "none",
    )


def model_config(name: str, **changes: Any) -> ModelConfig:
    """The configuration of a case's model, float32 on the CPU."""
    case = facts(name)
    checkpoint = golden(case["checkpoint"])
    fields: dict[str, Any] = {
        "model_path": str(checkpoint),
        "action_tokenizer_path": str(golden("fast_tokenizer")),
        "train_config_path": str(checkpoint / "config.yml"),
        "state_dim": case["state_dim"] or 8,
        "action_dim": case["action_dim"],
        "pred_horizon": case.get("horizon", 32),
        "device": "cpu",
        "dtype": "float32",
        "predict_mode": "fast" if case["kind"] == "fast" else "diffusion",
        "camera_key": case["cams"],
    }
    return ModelConfig(**{**fields, **changes})


def options(name: str, attention: str = "upstream_sdpa", **changes: Any) -> Options:
    """The options that a case was made with."""
    return Options(
        **{
            "conventions": conventions(name, attention),
            "num_steps": facts(name).get("steps", 10),
            "allow_special_tokens": name == "flow_unknown_camera_unicode",
            "allow_missing_state": name == "flow_no_proprio",
            **changes,
        }
    )


def observation(name: str) -> dict[str, Any]:
    """What a case's client sent, with the noise that the original drew."""
    case, arrays = facts(name), tensors(name)
    found = {key.removeprefix("obs/"): value for key, value in arrays.items() if key.startswith("obs/")}
    if "flow/noise" in arrays:
        found["noise"] = arrays["flow/noise"][0]
    return {**found, "prompt": case["prompt"], "dataset_names": [case["dataset"]]}
