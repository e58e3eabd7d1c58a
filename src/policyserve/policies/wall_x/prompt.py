"""The text that a Wall-X model was trained with around cameras, task and state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

IMAGE, PROPRIOCEPTION, ACTION = "<|image_pad|>", "<|propri|>", "<|action|>"
TURN_END = "<|im_end|>\n"  # follows the action tokens, by some conventions

_VIEWS: Mapping[str, str] = {
    "front_view": "front view",
    "face_view": "front view",
    "left_wrist_view": "left wrist view",
    "right_wrist_view": "right wrist view",
    "top_view": "top view",
    "wall_view": "wall view",
}


def view_name(camera: str) -> str:
    """What the text calls a camera; one that training did not know keeps its key."""
    return _VIEWS.get(camera, camera)


def prompt_text(task: str, cameras: Sequence[str]) -> str:
    """The text up to where the model's answer begins, one `<|image_pad|>` per camera."""
    views = "".join(f" {view_name(camera)}: <|vision_start|>{IMAGE}<|vision_end|>" for camera in cameras)
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\nObservation:{views}\n"
        f"Instruction: {task}\n"
        "Predict the next action in robot action.\n"
        f"Proprioception: {PROPRIOCEPTION}\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
