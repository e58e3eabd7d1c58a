"""Sessions and refusals in the rows that there are."""

from __future__ import annotations

from policyserve.cli.layout import width_of
from policyserve.cli.watch.lists import refusal_rows, session_rows
from policyserve.cli.watch.rows import Row
from tests.cli.watch.told import document, refusal, session, text_of_row


def texts(rows: list[Row]) -> list[str]:
    return [text_of_row(row) for row in rows]


def test_each_session_has_a_row() -> None:
    assert texts(session_rows(document(), 80)) == [
        "#  peer            dialect    Hz  p99 ms  waiting        open",
        "1  10.0.0.7:51001  openpi   12.5    20.4        0  1 min 15 s",
        "2  10.0.0.7:51002  wall_x   12.5    20.4        2  1 min 15 s",
        "3  10.0.0.7:51003  vibe_rl  12.5       –        0  1 min 15 s",
    ]


def test_where_not_all_fit_those_that_ask_most_are_shown() -> None:
    many = [session(number, hz=number) for number in range(1, 101)]
    told = texts(session_rows(document(sessions=many, sessions_left_out=50), 80, 4))
    assert [line.split()[0] for line in told[1:3]] == ["100", "99"]
    assert told[3] == "… and 148 more"


def test_keys_have_a_column_where_there_are_any_and_are_cut_first() -> None:
    told = texts(session_rows(document(sessions=[session(1, key="the-arm-in-the-kitchen-of-the-lab")]), 80))
    assert " key " in told[0]
    assert "10.0.0.7:51001" in told[1]
    assert max(map(width_of, told)) <= 80


def test_policies_have_a_column_where_there_are_several() -> None:
    told = texts(session_rows(document(sessions=[session(1, policy="pick"), session(2, policy="place")]), 80))
    assert [line.split()[:4] for line in told] == [
        ["#", "peer", "dialect", "policy"],
        ["1", "10.0.0.7:51001", "openpi", "pick"],
        ["2", "10.0.0.7:51002", "openpi", "place"],
    ]


def test_nobody_there_is_said() -> None:
    assert texts(session_rows(document(sessions=[]), 80)) == ["no sessions"]
    assert texts(refusal_rows([], 80)) == ["no refusals"]


def test_a_refusal_says_when_and_who_and_why() -> None:
    assert texts(refusal_rows(document().refusals, 60)) == [
        "last refusals and errors",
        "bad_observation × 3  2 s ago  session 9 · 10.0.0.9:40000",
        "  front: expected uint8 (180, 320, 3), got float32 (90, 160,",
        "  3); send bytes",
        "http_403  2 s ago  10.0.0.9:40000",
        "  pages of 'https://elsewhere' may not connect",
    ]


def test_where_rows_are_few_a_refusal_has_two() -> None:
    many = document(refusals=[refusal(text="no " * 100) for _ in range(9)]).refusals
    assert len(refusal_rows(many, 40, 6)) == 5
    assert len(refusal_rows(many, 40)) == 1 + 9 * 5
