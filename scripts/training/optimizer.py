"""Adam with clipped gradients, for Equinox modules, which optax's type annotations don't know."""

from __future__ import annotations

from typing import Any, TypeVar

import equinox as eqx
import optax

Model = TypeVar("Model")


def clipped_adam(learning_rate: float, max_grad_norm: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """Its state has the leaves that state.eqx keeps: count, first moments, second moments."""
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate, eps=eps))


def begin(optimizer: optax.GradientTransformation, model: Any) -> optax.OptState:
    return optimizer.init(model)


def descend(
    optimizer: optax.GradientTransformation, model: Model, gradient: Any, opt_state: optax.OptState
) -> tuple[Model, optax.OptState]:
    """Take one step down a gradient that has the model's own shape."""
    updates, opt_state = optimizer.update(gradient, opt_state)
    return eqx.apply_updates(model, updates), opt_state
