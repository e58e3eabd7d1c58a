"""base64 as the library reads it, without holding the interpreter."""

from __future__ import annotations

import base64
import random

import pytest

from policyserve.core.errors import WireError
from policyserve.dialects.rest.base64_text import read_base64

SIZES = [0, 1, 2, 3, 4, 3071, 3072, 3073, 3074, 3075, 98_303, 98_304, 98_305, 300_000]


@pytest.mark.parametrize("size", SIZES)
def test_it_reads_what_the_library_writes(size: int) -> None:
    data = random.Random(size).randbytes(size)
    read = read_base64(base64.b64encode(data).decode(), "x")
    assert bytes(read) == data
    assert not read.readonly


LONG = base64.b64encode(bytes(300_000)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "A", "AA", "AAA", "AA==AA==", "A===", "====", "AAA ", "AA\n=", "AA-_", "ääää", "AAAA\x00AAA", "=AAA",
        LONG[:5000] + "-" + LONG[5001:], LONG[:200_000] + "=" + LONG[200_001:], LONG[:-1] + "!", LONG + "A",
        LONG[:7] + "\n" + LONG[8:], LONG[:7] + "é" + LONG[8:],
    ],
)  # fmt: skip
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="base64"):
        read_base64(text, "image")


def test_the_error_says_where_the_letter_stands() -> None:
    with pytest.raises(WireError, match="letter at 5000 or 5001"):
        read_base64(LONG[:5001] + "*" + LONG[5002:], "image")
