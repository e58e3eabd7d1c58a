"""Which kernels some whole requests ran, how long each kind took, and how much of the time the device was at work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from policyserve.policies.wall_x.attention import AttentionMode
from policyserve.policies.wall_x.model import WallXModel

from .observed import TEXT, make_input
from .timing import seconds_of, wait_for_device

_REQUESTS, _LONGEST, _SHORT_US = 5, 15, 3.0


def profile_requests(model: WallXModel, attention: AttentionMode, trace: Path) -> dict[str, Any]:
    """Profile five requests at batch 1 after a first one, and write the trace for Chrome's chrome://tracing.

    On a GPU its kernels are counted, on a CPU torch's operators.
    """
    item = [make_input(model, TEXT, cameras=2, trailing=2 if attention == "upstream_sdpa" else 0)]
    is_gpu = model.network.device.type == "cuda"
    each = seconds_of(lambda: model.flow(item, attention=attention), _REQUESTS)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]
    with profile(activities=activities) as found:
        for _ in range(_REQUESTS):
            model.flow(item, attention=attention)
        wait_for_device()
    found.export_chrome_trace(str(trace))
    kind = "cuda" if is_gpu else "cpu"
    events = [event for event in found.events() or [] if event.device_type.name.lower() == kind]
    times = [(event.name, event.self_device_time_total if is_gpu else event.self_cpu_time_total) for event in events]
    by_name: dict[str, list[float]] = {}
    for name, microseconds in times:
        by_name.setdefault(name, []).append(microseconds)
    longest = sorted(by_name.items(), key=lambda entry: -sum(entry[1]))[:_LONGEST]
    total = sum(microseconds for _, microseconds in times)
    return {
        "kernels": len(times) / _REQUESTS,
        "busy_share": total / 1e6 / _REQUESTS / each,
        "short_share": sum(us for _, us in times if us < _SHORT_US) / max(total, 1e-9),
        "longest": [
            {"name": name, "ms": sum(found) / 1e3 / _REQUESTS, "calls": len(found) / _REQUESTS}
            for name, found in longest
        ],
    }


def told_profile(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal; none for a profile that was not made."""
    if not found:
        return
    yield ""
    yield (
        f"a request: {found['kernels']:.0f} kernels, the device busy {found['busy_share']:.0%} of the time; "
        f"kernels of less than {_SHORT_US:.0f} us make {found['short_share']:.0%} of it"
    )
    for kernel in found["longest"]:
        yield f"  {kernel['ms']:8.2f} ms {kernel['calls']:7.0f} x {kernel['name'][:50]}"
