"""What a person who starts a server wants to know about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policyserve.core.spec import PolicySpec
    from policyserve.server.listener import Address


def describe(spec: PolicySpec, address: Address, needs_key: bool = False) -> list[str]:
    """What a person who starts a server wants to know, line by line."""
    url = address.reachable.url
    lines = [
        f"takes   {path}: {leaf}{' (optional)' if leaf.optional else ''}" + (f"  {leaf.doc}" if leaf.doc else "")
        for path, leaf in spec.leaves.items()
    ]
    gives = "any finite numbers" if spec.action is None else str(spec.action)
    steps = "" if spec.horizon is None else f", chunks of {spec.horizon}"
    doc = f"  {spec.action.doc}" if spec.action and spec.action.doc else ""
    return [
        *(lines or ["takes   any observation (the policy declares no spec)"]),
        f"gives   {gives}{steps}{doc}",
        f"url     {url}   health: {address.reachable.health}",
        *([] if spec.observation is None else [f"client  {_client_line(spec, url, needs_key)}"]),
    ]


def _client_line(spec: PolicySpec, url: str, needs_key: bool) -> str:
    """A command to paste: it asks for one action with zeros."""
    import numpy as np

    needed = {
        path: leaf for path, leaf in spec.leaves.items() if not leaf.optional and not getattr(leaf, "default", "")
    }
    examples = {path: leaf.example() for path, leaf in needed.items()} or {"obs": np.zeros(4, np.float32)}
    items = [
        f"'{path}': " + (f"np.zeros({value.shape}, '{value.dtype}')" if isinstance(value, np.ndarray) else repr(value))
        for path, value in examples.items()
    ]
    key = ", api_key='KEY'" if needs_key else ""
    client = f"policyserve.Client('{url}'{key})"
    code = f"import numpy as np, policyserve; print({client}.infer({{{', '.join(items)}}}).actions)"
    return f'python -c "{code}"'
