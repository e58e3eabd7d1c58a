"""Which checkpoint in a directory to serve, and the network in it.

<dir>/state.eqx                  what save_checkpoint writes without a step
<dir>/step_<N>/state.eqx         with a step, and what run directories hold
<dir>/best                       a link to a step_<N>, or a file with its name, as archives without links leave it
<dir>/<N>/default/…              orbax, written while DQN and SAC train

For PPO, DQN and SAC alike the records of the network that acts come first: weight and bias of each layer, (out, in) and
(out,). What follows (critics, targets, the optimizer) need not be whole, but tells which algorithm wrote the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from policyserve.core.arrays import describe
from policyserve.core.errors import ConfigError
from policyserve.policies.files import reading
from policyserve.policies.mlp import Layer
from policyserve.policies.vibe_rl.records import EqxRecords, Header, Records, open_records, read_as, tell_casts

_FLOAT32 = np.dtype(np.float32)
_MAX_BEST_NAME = 255  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint. path: a state.eqx, or an orbax step directory. step: None if nothing says."""

    path: Path
    step: int | None


def find_checkpoint(directory: str | Path, step: int | None = None) -> Checkpoint:
    """Find step `step`, or the latest: state.eqx itself, else the largest step_<N>, else the largest orbax <N>.

    directory may also be one checkpoint's own directory. Raises ConfigError that names what is there instead.
    """
    folder = follow_best(Path(directory))
    if not folder.exists():
        raise ConfigError(f"{directory}: no such checkpoint directory")
    if not folder.is_dir():
        raise ConfigError(f"{directory}: expected a checkpoint directory, got a file")
    own = folder / "state.eqx"
    if step is None and own.exists():
        return Checkpoint(_check_file(own), _step_in(folder.resolve().name, "step_"))
    if step is None and _is_orbax(folder):
        return Checkpoint(folder, _step_in(folder.resolve().name, ""))
    eqx = {number: path / "state.eqx" for number, path in _steps(folder, "step_") if (path / "state.eqx").exists()}
    orbax = {number: path for number, path in _steps(folder, "") if _is_orbax(path)}
    wanted = max(eqx or orbax, default=None) if step is None else step
    if wanted is not None and wanted in eqx:
        return Checkpoint(_check_file(eqx[wanted]), wanted)
    if wanted is not None and wanted in orbax:
        return Checkpoint(orbax[wanted], wanted)
    raise ConfigError(f"{directory}: {_nothing_found(folder, step, sorted({*eqx, *orbax}))}")


def newest_checkpoint(directory: str | Path) -> Checkpoint | None:
    """The complete checkpoint of the highest step in a directory of steps; None while there is none.

    A step_<N>/state.eqx is complete if it ends where a record does, orbax' <N>, which is renamed once it is written, if
    its metadata are there. Raises ConfigError for a directory that is gone.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ConfigError(f"{directory}: the run's directory of checkpoints is gone, or not there yet")
    eqx = [Checkpoint(path / "state.eqx", number) for number, path in _steps(folder, "step_")]
    orbax = [Checkpoint(path, number) for number, path in _steps(folder, "")]
    return next((one for one in sorted([*eqx, *orbax], key=_step, reverse=True) if _is_complete(one.path)), None)


def _step(checkpoint: Checkpoint) -> int:
    return checkpoint.step or 0


def _is_complete(path: Path) -> bool:
    if path.is_dir():
        return _is_orbax(path)
    try:
        with path.open("rb") as file:
            return EqxRecords(path, file).is_whole()
    except OSError:
        return False


def follow_best(path: Path) -> Path:
    """The directory that a small file names, if it lies beside that file; any other path as it is."""
    if not path.is_file() or path.stat().st_size > _MAX_BEST_NAME:
        return path
    with reading(path, "a file with the name of a step's directory"):
        name = path.read_bytes().decode("utf-8", "replace").strip()
    is_plain = name not in ("", ".", "..") and not set(name) & set("/\\\0")
    return path.with_name(name) if is_plain and path.with_name(name).is_dir() else path


def is_step_name(name: str) -> bool:
    """Whether a directory of this name holds one step: `step_<N>`, or orbax's `<N>`."""
    return _step_in(name, "step_") is not None or _step_in(name, "") is not None


def read_network(checkpoint: Checkpoint, sizes: Sequence[int], algorithm: str) -> list[Layer]:
    """Read the network that acts, of `sizes` (inputs, *hidden, outputs), from a checkpoint of PPO, DQN or SAC.

    Weights of another precision (float16, bfloat16, float64) are cast to float32, and the log says so. Raises
    ConfigError naming file, record, expected and found shape, and what the file looks like instead.
    """
    with open_records(checkpoint.path) as records:
        for index, expected in enumerate(_expected(sizes)):
            _check_record(records, index, expected)
        written_by = _algorithm_of(_pairs(records), len(sizes) - 1, records)
        if written_by not in (None, algorithm):
            raise ConfigError(f"{checkpoint.path}: expected a {algorithm} checkpoint, found one of {written_by}")
        arrays = [read_as(records, index, _FLOAT32) for index in range(2 * (len(sizes) - 1))]
        tell_casts(records, [_FLOAT32] * len(arrays))
    return [Layer(weight, bias) for weight, bias in zip(arrays[::2], arrays[1::2], strict=True)]


def _expected(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    return [shape for inputs, outputs in pairwise(sizes) for shape in ((outputs, inputs), (outputs,))]


def _check_record(records: Records, index: int, shape: tuple[int, ...]) -> None:
    found = records.header(index)
    if found is not None and found.fits(_FLOAT32, shape):
        return
    name = f"record {index} ({'bias' if index % 2 else 'weight'} of layer {index // 2})"
    got = f"found {found}" if found else "the file ends before it" if index else "the file is empty"
    is_of_no_floats = found is not None and found.shape == shape  # another config does not help
    hint = "; weights may be floats of any width, and nothing else" if is_of_no_floats else _resemblance(records)
    raise ConfigError(f"{records.path}: {name}: expected {describe('float32', shape)}, {got}{hint}")


def _resemblance(records: Records) -> str:
    """Say what the file looks like, as far as it can be told."""
    pairs = _pairs(records)
    depth = 1
    while depth < len(pairs) and pairs[depth].shape[1] == pairs[depth - 1].shape[0]:
        depth += 1
    if len(pairs) < 2:
        return ""
    hidden = tuple(pair.shape[0] for pair in pairs[: depth - 1])
    algorithm = _algorithm_of(pairs, depth, records) or "a network"
    sizes = f"hidden_sizes {hidden}, {pairs[0].shape[1]} inputs and {pairs[depth - 1].shape[0]} outputs"
    return f"; the file looks like {algorithm} with {sizes}: serve it with the config it was trained with"


def _pairs(records: Records) -> list[Header]:
    """The weights of the linear layers that the file starts with, as far as it is whole."""
    pairs: list[Header] = []
    try:
        while (weight := records.header(2 * len(pairs))) and (bias := records.header(2 * len(pairs) + 1)):
            if len(weight.shape) != 2 or bias.shape != weight.shape[:1]:
                break
            pairs.append(weight)
    except ConfigError:
        pass  # what follows the network that acts may be damaged
    return pairs


def _algorithm_of(pairs: Sequence[Header], depth: int, records: Records) -> str | None:
    """Who wrote a file whose first `depth` layers are the network that acts, if what follows them leaves no doubt."""
    acting, others = [pair.shape for pair in pairs[:depth]], [pair.shape for pair in pairs[depth:]]
    if depth < 2 or not others:
        return None
    outputs, features = acting[-1]
    if others[0] == acting[-1] and len(others) > 2 and others[1][1] == acting[0][1] + outputs:
        return "SAC"  # the second head, then a critic of observation and action
    if others[0] == (1, features) and len(others) == 1 and _is_count(records, 2 * len(pairs)):
        return "PPO"  # actor and critic heads on a shared backbone, then the optimizer
    if others[: depth - 1] != acting[:-1] or len(others) < depth or outputs == 1:
        return None
    return {1: "PPO", outputs: "DQN"}.get(others[depth - 1][0])


def _is_count(records: Records, index: int) -> bool:
    try:
        found = records.header(index)
    except ConfigError:
        return False
    return found is not None and found.dtype == np.int32 and found.shape == ()


def _steps(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    """The directories in `folder` that are named `prefix` and a number."""
    with reading(folder, "a checkpoint directory"):
        named = [(_step_in(path.name, prefix), path) for path in folder.iterdir() if path.is_dir()]
    return sorted((number, path) for number, path in named if number is not None)


def _step_in(name: str, prefix: str) -> int | None:
    digits = name.removeprefix(prefix)
    return int(digits) if name.startswith(prefix) and digits.isascii() and digits.isdigit() else None


def _is_orbax(folder: Path) -> bool:
    return (folder / "default").is_dir() and any(
        (folder / name).exists() for name in ("_CHECKPOINT_METADATA", "default/manifest.ocdbt", "default/_METADATA")
    )


def _check_file(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path}: expected a file of .npy records, got a directory")
    return path


def _nothing_found(folder: Path, step: int | None, there: Sequence[int]) -> str:
    if step is not None:
        steps = f"step{'s' * (len(there) > 1)} {', '.join(map(str, there))}" if there else "no step"
        return f"expected step_{step}/state.eqx or orbax {step}/, got {steps}"
    inner = folder / "checkpoints"
    hint = f"; did you mean {inner}?" if inner.is_dir() else ""
    names = ", ".join(sorted(path.name for path in folder.iterdir()))[:200]
    return f"expected state.eqx, step_<N>/state.eqx or orbax <N>/, got {names or 'an empty directory'}{hint}"
