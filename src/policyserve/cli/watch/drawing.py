"""A server's live data as rows of a terminal of any size. Pure.

What must stay true: no row has more columns than the terminal, and there are never more rows than it has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from policyserve.cli.layout import wrapped
from policyserve.cli.watch.document import Document, Line, Numbers, Policy
from policyserve.cli.watch.lists import refusal_rows, session_rows
from policyserve.cli.watch.rows import BLOCKS, Piece, Row, Style, aligned, apart, duration, fitted, short, spark

_ROOMY = 34  # rows from which on each thing that the policy takes has a row of its own
_LEAST_REFUSALS = 2  # that are shown beside however many sessions
_MOST_OF_REFUSALS = 10  # where rows have no end
_MOST_OF_TROUBLE = 4  # rows
_BAR = 30  # columns
_GAP = "  "


@dataclass(frozen=True)
class View:
    """What is drawn. url: of the server, without a key. trouble: why it does not answer; empty while it does.

    foot: what stands in the last row; empty: nothing. marks: the levels of the lines, the lowest first.
    """

    document: Document
    url: str
    trouble: str = ""
    foot: str = ""
    marks: str = BLOCKS


def draw(view: View, columns: int, rows: int | None = None) -> list[Row]:
    """Draw it, the last row at the bottom where there is a foot. rows: None: as many as it takes."""
    told = view.document
    is_roomy = rows is None or rows >= _ROOMY
    above = [*_served(view, columns, is_roomy), [], *_numbers(told.numbers, columns, view.marks), []]
    below = _foot(view, columns)
    left = None if rows is None else max(rows - len(above) - len(below), 0)
    middle = _lists(told, columns, left)
    if left is not None and below:
        middle += [[]] * (left - len(middle))
    drawn = [fitted(row, columns) for row in [*above, *middle, *below]]
    return drawn if rows is None else [*drawn[: max(rows - len(below), 0)], *drawn[len(drawn) - len(below) :]][:rows]


def _foot(view: View, columns: int) -> list[Row]:
    if view.trouble:
        return [[Piece(line, "yellow")] for line in wrapped(view.trouble, columns)[:_MOST_OF_TROUBLE]]
    return [[Piece(view.foot, "dim")]] if view.foot else []


def _served(view: View, columns: int, is_roomy: bool) -> list[Row]:
    told, policy = view.document, view.document.policy
    state = Piece("no answer", "red") if view.trouble else _state(policy)
    name = Piece(policy.name or "policyserve", "bold")
    up = "" if told.up_s is None else f"up {duration(told.up_s)}"
    title = apart([name, Piece(_GAP), state, Piece(_GAP), Piece(view.url, "cyan")], [Piece(up, "dim")], columns)
    rows: list[Row] = [title]
    if not policy.is_ready:
        rows.append(_stage(policy.stage))
    facts = " · ".join(f"{name} {value}" for name, value in policy.facts)
    rows += [[Piece(line, "dim")] for line in wrapped(facts, columns)[: 3 if is_roomy else 1] if line]
    if policy.is_ready:
        rows += _spec(policy, is_roomy)
    return rows


def _state(policy: Policy) -> Piece:
    if policy.is_ready:
        return Piece("ready", "green")
    return Piece("failed", "red") if "failed" in policy.stage else Piece("not ready", "yellow")


def _stage(stage: str) -> Row:
    """What is loaded, with a bar where the server tells how much of it."""
    percent = re.search(r"(\d{1,3}) %", stage)
    if percent is None:
        return [Piece(stage, "red" if "failed" in stage else "yellow")]
    full = min(int(percent[1]), 100) * _BAR // 100
    return [Piece("[" + "#" * full + "." * (_BAR - full) + "] ", "yellow"), Piece(stage)]


def _spec(policy: Policy, is_roomy: bool) -> list[Row]:
    takes = [f"{path} {kind}".strip() for path, kind in policy.takes] or ["whatever it is sent"]
    lines = takes if is_roomy else [", ".join(takes)]
    words = ["takes  ", *["       "] * (len(lines) - 1)]
    rows: list[Row] = [[Piece(word, "dim"), Piece(line)] for word, line in zip(words, lines, strict=True)]
    return [*rows, [Piece("gives  ", "dim"), Piece(policy.gives or "–")]]


def _numbers(numbers: Numbers, columns: int, marks: str) -> list[Row]:
    busy = Line(_percent(numbers.busy.now), [_percent(value) for value in numbers.busy.history])
    lines: list[tuple[str, Line, float | None, Style]] = [
        ("answers/s", numbers.answers_per_s, None, "green"),
        ("p50 ms", numbers.p50_ms, None, "cyan"),
        ("p99 ms", numbers.p99_ms, None, "cyan"),
        ("busy %", busy, 100.0, "yellow"),
        ("sessions", numbers.sessions, None, "green"),
    ]
    rows = [_number(name, line, top, style, numbers.kept, columns, marks) for name, line, top, style in lines]
    if numbers.unanswered:
        rows[-1] = [*rows[-1], Piece(f"{_GAP}{numbers.unanswered:,} unanswered", "dim")]
    refused = numbers.refused_lately or numbers.refused
    if refused:
        when = "in two minutes" if numbers.refused_lately else "since the start"
        told = ", ".join(f"{count:,} {code}" for code, count in refused)
        rows.append([Piece(f"refused   {told} {when}", "red" if numbers.refused_lately else "dim")])
    return rows


def _number(name: str, line: Line, top: float | None, style: Style, kept: int, columns: int, marks: str) -> Row:
    """A number, its last two minutes, and the largest of them, which the line's height means."""
    most = max((value for value in line.history if value is not None), default=0.0)
    scale = top or most or 1.0
    drawn = spark(line.history, kept, columns - 33, scale, marks)
    told = [Piece(f"{name:<9} ", "dim"), Piece(aligned(short(line.now), 8), "bold"), Piece(_GAP), Piece(drawn, style)]
    return [*told, Piece(f"{_GAP}max {short(most)}" if most else "", "dim")]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(share * 100)


def _lists(told: Document, columns: int, left: int | None) -> list[Row]:
    """The sessions, and below them the refusals, in so many rows."""
    if left is None:
        return [*session_rows(told, columns), [], *refusal_rows(told.refusals[:_MOST_OF_REFUSALS], columns)]
    kept = min(len(refusal_rows(told.refusals[:_LEAST_REFUSALS], columns, left)), max(left // 2, 3))
    sessions = session_rows(told, columns, max(left - kept - 1, 2))
    return [*sessions, [], *refusal_rows(told.refusals, columns, max(left - len(sessions) - 1, 0))][:left]
