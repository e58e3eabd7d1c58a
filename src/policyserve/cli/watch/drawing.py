"""A server's live data as rows of a terminal of any size. Pure.

What must stay true: no row has more columns than the terminal, and there are never more rows than it has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from policyserve.cli.layout import wrapped
from policyserve.cli.watch.document import Document, Line, Numbers, Policy
from policyserve.cli.watch.lists import refusal_rows, session_rows
from policyserve.cli.watch.rows import BLOCKS, Piece, Row, Style, aligned, apart, duration, fitted, short, spark

_MOST_POLICY_ROWS = 3  # of the names of several policies
_ROOMY = 34  # rows from which on each thing that the policy takes has a row of its own
_ONE_REFUSAL = 3  # rows, with the title
_MOST_OF_REFUSALS = 10  # where rows have no end
_MOST_OF_TROUBLE = 4  # rows
_BAR = 30  # columns
_BESIDE_GRAPH = 36  # columns
_GAP = "  "


@dataclass(frozen=True)
class View:
    """What is drawn. url: of the server, without a key. trouble: why it does not answer; empty while it does.

    hint: what stands at the end of the first row. marks: the levels of the lines, the lowest first.
    """

    document: Document
    url: str
    trouble: str = ""
    hint: str = ""
    marks: str = BLOCKS


def draw(view: View, columns: int, rows: int | None = None) -> list[Row]:
    """Draw it; what is the matter stands in the last rows. rows: None: as many as it takes."""
    above = [*_served(view, columns, rows is None or rows >= _ROOMY), []]
    above += [*_numbers(view.document.numbers, columns, view.marks), []]
    below: list[Row] = [[Piece(line, "yellow")] for line in wrapped(view.trouble, columns)[:_MOST_OF_TROUBLE] if line]
    left = None if rows is None else max(rows - len(above) - len(below), 0)
    middle = _lists(view.document, columns, left)
    above = [fitted(row, columns) for row in [*above, *middle]]
    if rows is None:
        return [*above, *below]
    below = below[:rows]
    above = above[: rows - len(below)]
    return [*above, *([[]] * (rows - len(above) - len(below) if below else 0)), *below]


def _served(view: View, columns: int, is_roomy: bool) -> list[Row]:
    told, policy = view.document, view.document.policy
    state = Piece("no answer", "red") if view.trouble else _state(policy)
    name = Piece(policy.name or "policyserve", "bold")
    up = _GAP.join(filter(None, ["" if told.up_s is None else f"up {duration(told.up_s)}", view.hint]))
    title = apart([name, Piece(_GAP), state, Piece(_GAP), Piece(view.url, "cyan")], [Piece(up, "dim")], columns)
    rows: list[Row] = [title]
    if len(told.policies) > 1:
        rows += _policies(told.policies, columns)
    if not policy.is_ready:
        rows.append(_stage(policy.stage))
    facts = " · ".join(f"{name} {value}" for name, value in policy.facts)
    rows += [[Piece(line, "dim")] for line in wrapped(facts, columns)[: 3 if is_roomy else 1] if line]
    if policy.is_ready:
        rows += _spec(policy, is_roomy)
    return rows


def _policies(policies: Sequence[Policy], columns: int) -> list[Row]:
    """How far each of several is; what is shown above and below is the default one's."""
    told = " · ".join(f"{one.name} {_state(one).text}" for one in policies)
    words = ["policies  ", *[" " * 10] * (_MOST_POLICY_ROWS - 1)]
    lines = [line for line in wrapped(told, columns - 10) if line]
    return [[Piece(word, "dim"), Piece(line)] for word, line in zip(words, lines, strict=False)]


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
    waiting = f", {numbers.unanswered:,} waiting" if numbers.unanswered else ""
    graphs = [
        _Graph("answers/s", numbers.answers_per_s, "green"),
        _Graph("p50 ms", numbers.p50_ms, "cyan"),
        _Graph("p99 ms", numbers.p99_ms, "cyan"),
        _Graph("busy %", busy, "yellow", top=100.0),
        _Graph("sessions", numbers.sessions, "green", more=waiting),
    ]
    rows = [graph.row(numbers.kept, columns, marks) for graph in graphs]
    refused = numbers.refused_lately or numbers.refused
    if refused:
        when = "in the last two minutes" if numbers.refused_lately else "since the start"
        told = ", ".join(f"{count:,} {code}" for code, count in refused)
        rows.append([Piece(f"refused {when}: {told}", "red" if numbers.refused_lately else "dim")])
    return rows


@dataclass(frozen=True)
class _Graph:
    """A number, its last two minutes, and the largest of them. top: what the line's height means; None: the largest."""

    name: str
    line: Line
    style: Style
    top: float | None = None
    more: str = ""

    def row(self, kept: int, columns: int, marks: str) -> Row:
        most = max((value for value in self.line.history if value is not None), default=0.0)
        history = spark(self.line.history, kept, columns - _BESIDE_GRAPH, self.top or most, marks)
        return [
            Piece(f"{self.name:<9}", "dim"),
            Piece(aligned(short(self.line.now), 8), "bold"),
            Piece(_GAP),
            Piece(history, self.style),
            Piece(f"{_GAP}max {short(most)}{self.more}" if most else "", "dim"),
        ]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(share * 100)


def _lists(told: Document, columns: int, left: int | None) -> list[Row]:
    """The sessions, and below them the refusals, in so many rows: all sessions and one refusal before any more."""
    if left is None:
        return [*session_rows(told, columns), [], *refusal_rows(told.refusals[:_MOST_OF_REFUSALS], columns)]
    newest = len(refusal_rows(told.refusals[:1], columns, _ONE_REFUSAL))
    sessions = session_rows(told, columns, max(left - newest - 1, 2))
    return [*sessions, [], *refusal_rows(told.refusals, columns, max(left - len(sessions) - 1, 0))][:left]
