"""Policies around models that users build as Equinox modules; needs the extra `jax`.

model = load_equinox(model, "runs/x/checkpoints")
policy = equinox_policy(model, lambda model, obs: model(obs), spec=spec)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.policy import FunctionPolicy, open_spec
from policyserve.core.spec import PolicySpec
from policyserve.policies.stacked import StackedPolicy, powers_of_two
from policyserve.policies.vibe_rl.checkpoint import find_checkpoint
from policyserve.policies.vibe_rl.jax_backend import import_jax
from policyserve.policies.vibe_rl.records import Records, open_records, read_as, tell_casts
from policyserve.transforms import Transform, identity

_Model = TypeVar("_Model")


def equinox_policy(
    model: _Model,
    infer_fn: Callable[[_Model, Any], Any],
    input_transform: Transform = identity,
    output_transform: Transform = identity,
    *,
    spec: PolicySpec | None = None,
) -> StackedPolicy | FunctionPolicy:
    """Make a policy that answers output_transform(infer_fn(model, input_transform(observation))), compiled.

    infer_fn: a function of the model and one example, which is an array if `obs` is the observation's only key, else a
    map. With a spec it is vmapped over up to spec.max_batch rows, and where the spec leaves a size free, each new size
    compiles when it first comes. Without a spec one observation is answered at a time, and every new shape compiles.
    Raises MissingDependency.
    """
    jax, equinox = import_jax(), import_equinox()
    # The arrays are arguments of the compiled programs, not constants in each of them.
    arrays, rest = equinox.partition(model, equinox.is_array)

    def act(arrays: Any, observation: Any) -> Any:
        whole = equinox.combine(arrays, rest)
        return output_transform(infer_fn(whole, input_transform(observation)))

    compiled = jax.jit(act if spec is None else jax.vmap(act, in_axes=(None, 0)))

    def infer(observation: Any) -> Array:
        return np.asarray(compiled(arrays, observation))

    if spec is None:
        return FunctionPolicy(infer, open_spec(type(model).__name__))
    return StackedPolicy(_unwrapped(infer, spec), spec, buckets=powers_of_two(spec.max_batch))


def _unwrapped(infer: Callable[[Any], Array], spec: PolicySpec) -> Callable[[Mapping[str, Any]], Array]:
    """An observation of `obs` alone is a bare array on vibe_rl's wire, and to its models."""
    return (lambda rows: infer(rows["obs"])) if set(spec.observation or {}) == {"obs"} else infer


def load_equinox(model: _Model, path: str | Path, *, step: int | None = None) -> _Model:
    """Fill a model with the leaves of a checkpoint, in tree order; what follows them in the file is not looked at.

    model: a model of the right sizes, or the shapes that equinox.filter_eval_shape gives. path: a state.eqx, or a
    checkpoint directory (step None: the latest). Floats and integers of another width than the model's are cast to it,
    which the log says. Raises ConfigError naming the record, where it stands in the model, and the shapes expected and
    found; MissingDependency.
    """
    jax, _ = import_jax(), import_equinox()
    is_state = Path(path).is_file() and Path(path).suffix == ".eqx"
    place = Path(path) if is_state and step is None else find_checkpoint(path, step).path
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    filled: list[Any] = []
    dtypes: list[np.dtype[Any]] = []  # of the leaves that are in the file
    with open_records(place) as records:
        for where, leaf in leaves:
            if _is_saved(leaf):
                filled.append(_read_leaf(jax, records, len(dtypes), leaf, jax.tree_util.keystr(where)))
                dtypes.append(_dtype_of(leaf))
            else:
                filled.append(leaf)
        tell_casts(records, dtypes)
    return jax.tree_util.tree_unflatten(structure, filled)


def _is_saved(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") or isinstance(leaf, (bool, int, float, complex))


def _read_leaf(jax: Any, records: Records, index: int, leaf: Any, where: str) -> Any:
    is_scalar = not hasattr(leaf, "dtype")  # a Python number: a record without dimensions
    dtype, shape = _dtype_of(leaf), () if is_scalar else tuple(leaf.shape)
    found = records.header(index)
    if found is None or not found.fits(dtype, shape):
        got = f"found {found}" if found else "the file ends before it"
        raise ConfigError(f"{records.path}: record {index} ({where}): expected {describe(dtype, shape)}, {got}")
    value = read_as(records, index, dtype)
    if is_scalar:
        return type(leaf)(value.item())
    return value if isinstance(leaf, np.ndarray) else jax.numpy.asarray(value)


def _dtype_of(leaf: Any) -> np.dtype[Any]:
    return np.dtype(leaf.dtype) if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def import_equinox() -> Any:
    """Import Equinox; raises MissingDependency."""
    try:
        import equinox
    except ImportError as error:
        raise MissingDependency("equinox", "jax") from error
    return equinox
