"""What is to be recorded, and where: values."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What to record, and where. max_bytes: of one file; queue_bytes: of messages that are not written yet.

    has_views: pictures and numbers for people stand beside the messages.
    """

    directory: str
    max_bytes: int = 1024 * _MIB
    queue_bytes: int = 256 * _MIB
    has_views: bool = True
