"""The same networks compiled by JAX: for accelerators and for hidden layers that outgrow NumPy on one core."""

from __future__ import annotations

from typing import Any

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import MissingDependency
from policyserve.policies.vibe_rl.networks import ActingNetwork, ForwardRows


def import_jax() -> Any:
    """Import JAX; raises MissingDependency."""
    try:
        import jax
    except ImportError as error:
        raise MissingDependency("jax", "jax") from error
    # One thread calls us and waits: handing the work to another costs more than a small network does.
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # without effect where JAX runs already
    return jax


def jax_forward(network: ActingNetwork) -> ForwardRows:
    """Compile the function of stacked observations, anew for each number of rows; raises MissingDependency.

    The weights are arguments of the compiled programs, not constants in each of them.
    """
    jax = import_jax()
    weights = jax.device_put([(layer.weight, layer.bias) for layer in network.layers])
    activate = {"tanh": jax.numpy.tanh, "relu": jax.nn.relu}[network.hidden]

    def act(weights: Any, observations: Any) -> Any:
        rows = network.input_transform(observations)  # (N, D)
        for depth, (weight, bias) in enumerate(weights):
            rows = jax.numpy.matmul(activate(rows) if depth else rows, weight.T, precision="highest") + bias
        if network.is_discrete:
            return rows.argmax(axis=-1).astype(np.int32)
        return network.output_transform(jax.numpy.tanh(rows))

    compiled = jax.jit(act)

    def forward(observations: Array) -> Array:
        return np.asarray(compiled(weights, observations))

    return forward
