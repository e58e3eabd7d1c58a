"""Serve a jitted JAX model that is compiled before the first robot asks.

Usage:
    policyserve serve examples/jax_policy.py:make_policy
    python examples/jax_policy.py

Needs `pip install 'policyserve[jax]'` where the server runs. JAX compiles a function for each shape that it meets.
`buckets` are the batch sizes that it may meet: each is run once at start, and a batch between two of them is padded.
"""

import numpy as np
import tyro

from policyserve import ArraySpec, Client, PolicySpec, StackedPolicy

HORIZON = 16
SPEC = PolicySpec(
    "reach",
    observation={"joints": ArraySpec((7,), doc="angles in rad")},
    action=ArraySpec((7,), doc="speeds in rad/s"),
    horizon=HORIZON,
    max_batch=16,
)


def make_policy() -> StackedPolicy:
    """Make the model. JAX is imported here and not above, so that a robot needs none."""
    import jax
    import jax.numpy as jnp

    weights = jax.random.normal(jax.random.key(0), (7, HORIZON * 7)) / 7  # a checkpoint is loaded here

    @jax.jit
    def forward(joints: jax.Array) -> jax.Array:
        print(f"compiling for a batch of {len(joints)}")  # is reached only while JAX compiles
        return jnp.tanh(joints @ weights).reshape(-1, HORIZON, 7)

    return StackedPolicy(lambda rows: np.asarray(forward(rows["joints"])), SPEC, buckets=(1, 4, 16))


def main(url: str = "ws://localhost:8000") -> None:
    """Ask a hundred times; the first answer takes no longer than the others."""
    with Client(url) as client:
        replies = [client.infer({"joints": np.full(7, angle)}) for angle in np.linspace(-1, 1, 100)]
    times_ms = [reply.timing["infer_ms"] for reply in replies]
    print(f"{len(replies)} chunks of {replies[0].actions.shape}")
    print(f"the model took {times_ms[0]:.2f} ms for the first, {np.median(times_ms):.2f} ms for half of them")


if __name__ == "__main__":
    tyro.cli(main)
