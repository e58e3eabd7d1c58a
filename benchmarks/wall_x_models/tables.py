"""Tables of a terminal, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .first_calls import FirstCall
from .stages import Row


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    for row in [titles, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |")


def print_stages(rows: Sequence[Row]) -> None:
    print_table(
        ("stage", "batch", "ms", "GB", "GFLOP", "limit ms", "of limit", ""),
        [
            (
                *(row.stage, str(row.batch), f"{row.seconds * 1e3:.1f}", f"{row.gigabytes:.3f}"),
                *(f"{row.gigaflops:.2f}", *_limit(row), row.note),
            )
            for row in rows
        ],
    )


def _limit(row: Row) -> tuple[str, str]:
    if not row.limit_s:
        return "-", "-"
    return f"{row.limit_s * 1e3:.1f}", f"{row.limit_s / row.seconds:.0%}"


def print_comparison(results: Sequence[dict[str, Any]]) -> None:
    print_table(
        ("prefix", "recompute ms", "cached ms", "ratio", "goal", "max difference"),
        [
            (
                *(str(result["prefix"]), f"{result['recompute_s'] * 1e3:.0f}", f"{result['cached_s'] * 1e3:.0f}"),
                *(f"{result['ratio']:.2f}", str(result["goal"] or "-"), f"{result['max_difference']:.1e}"),
            )
            for result in results
        ],
    )


def print_first_calls(calls: Sequence[FirstCall]) -> None:
    print_table(
        ("first call of a new shape", "first ms", "second ms", "more ms"),
        [
            (call.shape, *(f"{ms:.1f}" for ms in (call.first_s * 1e3, call.second_s * 1e3, call.extra_s * 1e3)))
            for call in calls
        ],
    )
