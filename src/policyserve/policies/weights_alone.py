"""Files and folders that hold weights without a network: what wrote them, by their content, and how they get one.

Nothing of a pickle is run: the names in its first bytes tell whose it is.
"""

from __future__ import annotations

import re
from pathlib import Path

from policyserve.policies.files import reading

_LOOKED_AT = 1 << 16  # bytes
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
# A map of MessagePack with a text as its first key, which is how Flax writes parameters.
_MSGPACK = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)", re.DOTALL)
_OWN = "have a policy of your own load them: policyserve new my_policy.py"
_OUT_OF_RLLIB = "where it was trained: algorithm.export_policy_model(FOLDER, onnx=17)"
_OF_VIBE_RL = "vibe_rl's is served by vibe_rl:RUN, its run's folder"
_IN_PICKLES = (
    (
        b"stable_baselines3.common.vec_env",
        "what VecNormalize saved, statistics without a policy: serve the zip that they belong to; beside it they are"
        " found, elsewhere --vecnormalize names them",
    ),
    (b"ray.rllib", f"a checkpoint of RLlib, a pickle; {_OUT_OF_RLLIB}"),
    (b"brax", f"what Brax saved, a pickle of parameters without a network; {_OWN}"),
    (b"jax", f"arrays of JAX in a pickle, parameters without a network; {_OWN}"),
)
_PICKLED = (
    "a pickle, which can run any code when it is read: policyserve does not;"
    " export the policy as ONNX where it was trained"
)
_OF_ORBAX = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")
_OF_RLLIB = ("rllib_checkpoint.json", "algorithm_state.pkl")


def told_of_file(target: str, path: Path) -> str | None:
    """What a file is that holds no network, and what to do; None: it is none that is known. Raises ConfigError."""
    with reading(target, "a file that can be read"), path.open("rb") as file:
        head = file.read(_LOOKED_AT)
    if _PICKLE.match(head):
        return next((told for name, told in _IN_PICKLES if name in head), _PICKLED)
    if path.suffix.lower() == ".safetensors":
        return "weights without a network; name the folder that has their config.json"
    if path.suffix.lower() == ".msgpack" and _MSGPACK.match(head):
        return f"parameters of Flax, as MessagePack and without a network; {_OWN}"
    return None


def told_of_folder(target: str, path: Path) -> str | None:
    """What a folder is that holds no policy of one file, and what to do; None: it is not known. Raises ConfigError."""
    with reading(target, "a folder that can be read"):
        names = {one.name for one in path.iterdir()}
        inner = {name for one in path.iterdir() if one.is_dir() for name in _OF_ORBAX if (one / name).is_file()}
    if names & {*_OF_RLLIB}:
        return f"a checkpoint of RLlib; {_OUT_OF_RLLIB}"
    if (names | inner) & {*_OF_ORBAX}:
        whose = f"openpi's is served by openpi:CONFIG --dir {target}" if "params" in names else _OF_VIBE_RL
        return f"a checkpoint of orbax, weights without a network: {whose}; any other: {_OWN}"
    if {"model.safetensors", "assets"} <= names:
        return f"weights without a network: openpi's are served by openpi:CONFIG --dir {target}; any other: {_OWN}"
    return None
