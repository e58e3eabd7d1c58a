"""Where the replicas of an application listen: each tells it in the cluster's own memory, under its actor's name.

Both that memory and the list of living actors are the head node's (GCS), so that neither Serve's controller nor a lost
node takes them away. Whoever may ask for them may run code on the cluster. All calls wait for Ray.
"""

# The environment of our own checks has no ray:
# pyright: reportMissingImports=false
from __future__ import annotations

import msgpack

from policyserve.ray.link import Place

SECRET_BYTES = 32
_NAMESPACE = b"policyserve"


def tell(application: str, host: str, port: int, secret: bytes) -> None:
    """In a replica: say where it listens. Forgets replicas of the same application that are dead."""
    import ray
    from ray.experimental import internal_kv

    own = ray.get_runtime_context().get_actor_name()
    living = _living()
    for key in internal_kv._internal_kv_list(_prefix(application), namespace=_NAMESPACE):
        if _name_in(key, application) not in living:
            internal_kv._internal_kv_del(key, namespace=_NAMESPACE)
    key = _prefix(application) + own.encode()
    internal_kv._internal_kv_put(key, msgpack.packb([host, port, secret]), namespace=_NAMESPACE)


def find(application: str) -> list[Place]:
    """The places of those that live; raises what Ray raises while the cluster is away."""
    from ray.experimental import internal_kv

    living = _living()
    places: list[Place] = []
    for key in internal_kv._internal_kv_list(_prefix(application), namespace=_NAMESPACE):
        name = _name_in(key, application)
        told = internal_kv._internal_kv_get(key, namespace=_NAMESPACE) if name in living else None
        if told is not None:
            places.append(Place(name, *msgpack.unpackb(told)))
    return places


def own_address() -> str:
    """The address by which other nodes reach this one."""
    import ray

    return ray.util.get_node_ip_address()


def _living() -> set[str]:
    from ray.util import list_named_actors

    return {str(one["name"]) for one in list_named_actors(all_namespaces=True)}  # type: ignore[index]


def _prefix(application: str) -> bytes:
    return f"{application}\n".encode()


def _name_in(key: bytes, application: str) -> str:
    return key[len(_prefix(application)) :].decode()
