"""The sessions and the refusals as rows: all of them, or as many as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from policyserve.cli.layout import cut_in_the_middle, padded, width_of, wrapped
from policyserve.cli.watch.document import Document, Refusal, Session
from policyserve.cli.watch.rows import Piece, Row, aligned, duration, short

_GAP = "  "
_NARROWEST = 12  # columns of a peer, before a key is cut
_MOST_LINES = 4  # of a refusal's text


def session_rows(told: Document, columns: int, most: int | None = None) -> list[Row]:
    """A title and a row for each, in at most so many rows: where not all fit, those that ask most often."""
    if not told.sessions:
        return [[Piece("no sessions", "dim")]]
    shown, left_out = list(told.sessions), told.sessions_left_out
    if most is not None and 1 + len(shown) + bool(left_out) > most:
        shown = sorted(shown, key=lambda one: (-round(one.hz or 0.0), one.number))[: max(most - 2, 0)]
    rows = _table(shown, columns)
    more = len(told.sessions) - len(shown) + left_out
    return [*rows, [Piece(f"… and {more:,} more", "dim")]] if more else rows


def refusal_rows(refusals: Sequence[Refusal], columns: int, most: int | None = None) -> list[Row]:
    """A title and the newest ones, in at most so many rows: where those are few, a text has one."""
    if not refusals:
        return [[Piece("no refusals", "dim")]]
    is_tight = most is not None and most < sum(len(_refusal(one, columns, _MOST_LINES)) for one in refusals) + 1
    rows: list[Row] = [[Piece("last refusals and errors", "dim")]]
    for one in refusals:
        told = _refusal(one, columns, 1 if is_tight else _MOST_LINES)
        if most is not None and len(rows) + len(told) > most:
            break
        rows += told
    return rows[:most]


def _table(sessions: Sequence[Session], columns: int) -> list[Row]:
    """Peers and keys are cut so that the rest fits."""
    has_keys, has_policies = any(one.key for one in sessions), any(one.policy for one in sessions)
    named = [*(["policy"] if has_policies else []), *(["key"] if has_keys else [])]
    titles = ["#", "peer", "dialect", *named, "Hz", "p99 ms", "waiting", "open"]
    cells = [_cells(one, has_keys, has_policies) for one in sessions]
    widths = [max(width_of(row[index]) for row in [titles, *cells]) for index in range(len(titles))]
    texts = [titles.index(name) for name in ("peer", "dialect", "policy", "key") if name in titles]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - columns
    for index in reversed(texts):  # keys first: of a peer its address matters
        less = min(max(over, 0), max(widths[index] - _NARROWEST, 0))
        widths[index] -= less
        over -= less
    rows: list[Row] = [[Piece(_joined(titles, widths, texts), "dim")]]
    for one, row in zip(sessions, cells, strict=True):
        rows.append([Piece(_joined(row, widths, texts), "yellow" if one.pending > 1 else "")])
    return rows


def _cells(one: Session, has_keys: bool, has_policies: bool) -> list[str]:
    named = [*([one.policy] if has_policies else []), *([one.key] if has_keys else [])]
    who = [str(one.number), one.peer, one.dialect, *named]
    return [*who, short(one.hz), short(one.p99_ms), f"{one.pending:,}", duration(one.age_s)]


def _joined(cells: Sequence[str], widths: Sequence[int], texts: Sequence[int]) -> str:
    told = [
        padded(cut_in_the_middle(cell, width), width) if index in texts else aligned(cell, width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return _GAP.join(told)


def _refusal(one: Refusal, columns: int, most_lines: int) -> list[Row]:
    """When, what and who, and below it why."""
    times = f" × {one.count:,}" if one.count > 1 else ""
    ago = "now" if one.ago_s is not None and one.ago_s < 1 else f"{duration(one.ago_s)} ago"
    who = " · ".join(filter(None, ["" if one.session is None else f"session {one.session}", one.peer]))
    head: Row = [Piece(f"{one.code}{times}", "red"), Piece(f"{_GAP}{ago}{_GAP}{who}", "dim")]
    why = one.text
    if one.expected:
        hint = f"; {one.hint}" if one.hint else ""
        why = f"{one.path or '(the whole message)'}: expected {one.expected}, got {one.got}{hint}"
    lines = wrapped(why, max(columns - len(_GAP), 1))
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], " ".join(lines[most_lines - 1 :])]
    return [head, *([Piece(_GAP + line)] for line in lines if line)]
