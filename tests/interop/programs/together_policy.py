"""One policy for clients of every family: each answer holds the numbers by which a client knows its own request."""

import re

import numpy as np

from policyserve import FunctionPolicy, PolicySpec
from policyserve.core.errors import BadObservation

# GR00T's clients want the first four, MolmoSpaces' the last two.
PARTS = {"left_arm": 7, "right_arm": 7, "left_hand": 1, "right_hand": 1, "arm": 2, "gripper": 1}
WIDTH = sum(PARTS.values())
FACTS = {"modality": PARTS, "action_chunk_size": 2, "vla_eval": {"observation_params": {"send_state": True}}}


def act(seen):
    """What each family's program expects, see there."""
    if isinstance(seen, np.ndarray):  # vibe_rl's
        seen = {"state": seen}
    prompt = seen.get("prompt", "")
    if re.fullmatch(r"\d+ \d+", prompt):
        return of_pictures(seen["images"], *map(int, prompt.split()))
    state = next((seen[key] for key in ("state", "observation/state", "obs") if key in seen), None)
    if state is None:
        raise BadObservation("state", "the robot's state", "nothing")
    if isinstance(state, dict) and "left_arm" in state:  # GR00T's
        return np.full((4, WIDTH), state["left_arm"][0], np.float32)
    if isinstance(state, dict) and list(state) == ["arm"]:  # MolmoSpaces'
        row = np.concatenate([np.zeros(WIDTH - 3), state["arm"]])
        return np.stack([row, row * 2])
    if isinstance(state, dict):
        state = np.concatenate([np.atleast_1d(part) for part in state.values()])
    bright = 0
    if len(state) == 8:  # vla-eval's and XPolicyLab's
        state, (picture,) = np.asarray(state, np.float32), seen["images"].values()
        bright = picture[0, 0, 0]
    return np.stack([state + bright, state * 2 + bright])


def of_pictures(pictures, salt, size):
    """Of those who ask by HTTP: the pictures' colour, and what the instruction says."""
    (colour,) = {int(picture.max()) for picture in pictures.values()}
    actions = np.full((3, size), colour / 256, np.float32)
    actions[:, 0] = salt + np.arange(3)
    return actions


policy = FunctionPolicy(act, PolicySpec("together", None, None, horizon=4, metadata=FACTS))
