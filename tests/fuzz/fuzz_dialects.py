"""A coverage-guided fuzzer of everything that reads a stranger's bytes: any frame gives a message or a refusal.

    pip install atheris && python tests/fuzz/fuzz_dialects.py -max_total_time=600 [corpus folder]

What it finds becomes a test in tests/dialects; pytest does not collect this file.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["policyserve"]):
    import numpy as np

    from policyserve.core.errors import BadObservation, RemoteError, WireError
    from policyserve.core.messages import Reply, Request
    from policyserve.core.session import Session
    from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
    from policyserve.dialects import Auto, by_name, names
    from policyserve.dialects.wire import unpack_views

SPEC = PolicySpec(
    "fuzzed",
    observation={
        "image": ImageSpec(layouts=("HWC", "CHW", "HW", "1HWC"), dtypes=("uint8", "float"), optional=True),
        "obs": ArraySpec((4,), optional=True),
        "a/b": ArraySpec((None,), "int32", optional=True),
        "prompt": TextSpec(default=""),
        "names": TextListSpec(optional=True),
    },
    action=None,
    max_client_batch=16,
)


def check(frame: bytes | str) -> None:
    """Hand a frame to both halves of every dialect, and to a session that does not know its dialect."""
    for name in names():
        with suppress(WireError, BadObservation):
            request = by_name(name).read_request(frame)
            assert isinstance(request, Request)
            SPEC.validate(request.observation)
        with suppress(WireError, RemoteError):
            assert isinstance(by_name(name).read_reply(frame), Reply)
    session = Session(None, choice=Auto(), max_pending=2)
    session.serve(SPEC, {})
    session.receive(frame, 0.0)
    with suppress(WireError):
        if not isinstance(frame, str):
            unpack_views(memoryview(bytearray(frame)))


def fuzz(data: bytes) -> None:
    """One input of the fuzzer; an odd first byte makes it a text frame."""
    with np.errstate(all="raise"):
        check(data[1:].decode("utf-8", "replace") if data[:1] and data[0] == 0xFF else data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
