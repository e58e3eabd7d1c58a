"""What a policy remembers of a session as bytes, which travel with its requests and come back with the answers. Pure.

Only replicas read them. To whoever keeps them between two requests they are bytes.
"""

from __future__ import annotations

from typing import Any

from policyserve.core.errors import PolicyFailed
from policyserve.core.printable import error_text
from policyserve.engine.isolated.codec import pack, unpack

DEFAULT_MAX_STATE_KIB = 64.0


def write_state(state: Any, max_state_kib: float = DEFAULT_MAX_STATE_KIB) -> bytes | None:
    """A policy's state as bytes; None is no state.

    Raises PolicyFailed if it holds something else than arrays, numbers, texts, lists, maps and dataclasses of them, or
    if it is larger than max_state_kib.
    """
    if state is None:
        return None
    try:
        data = pack(state)
    except BaseException as error:  # a policy's own objects: anything may happen while they are looked at
        told = f"the state of a session cannot travel between machines: {error_text(error)}"
        cure = "return arrays, numbers, texts, lists and maps of them, or deploy the policy with --session-state stays"
        raise PolicyFailed(f"{told}; {cure}") from error
    if len(data) > max_state_kib * 1024:
        told = f"the state of a session has {len(data) / 1024:.0f} KiB and travels with each request"
        cure = "raise --max-state-kib, keep less of it, or deploy the policy with --session-state stays"
        raise PolicyFailed(f"{told}: expected at most {max_state_kib:g}; {cure}")
    return data


def read_state(data: bytes | None) -> Any:
    """The state that write_state() wrote, in a replica: its arrays are writable, its dataclasses are made anew."""
    return None if data is None else unpack(data, trusted=True)
