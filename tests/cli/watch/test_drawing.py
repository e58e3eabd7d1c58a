"""The whole picture, at every size, and when something is the matter."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.cli.layout import width_of
from policyserve.cli.watch.document import Document
from policyserve.cli.watch.drawing import View, draw
from policyserve.cli.watch.rows import Row
from tests.cli.watch.told import document, leaf, session, text_of_row, told

URL = "ws://robot:8000"
PICTURE = """\
kitchen_arm  ready  ws://robot:8000                         up 5 min 3 s  q: end
checkpoint runs/kitchen/step_30000 · device cpu
takes  front uint8 image HWC, 180 x 320, state float32 (7,)
gives  float32 (7,), chunks of 50

answers/s      80                                        ▂█  max 80
p50 ms       12.3                                        ▇█  max 13
p99 ms          –                                        ▄█  max 41.5
busy %         46                                        ▂▄  max 46
sessions        3                                        ▃█  max 3, 2 waiting
refused in the last two minutes: 3 bad_observation

#  peer            dialect    Hz  p99 ms  waiting        open
1  10.0.0.7:51001  openpi   12.5    20.4        0  1 min 15 s
2  10.0.0.7:51002  wall_x   12.5    20.4        2  1 min 15 s
3  10.0.0.7:51003  vibe_rl  12.5       –        0  1 min 15 s

last refusals and errors
bad_observation × 3  2 s ago  session 9 · 10.0.0.9:40000
  front: expected uint8 (180, 320, 3), got float32 (90, 160, 3); send bytes
http_403  2 s ago  10.0.0.9:40000
  pages of 'https://elsewhere' may not connect
"""


def drawn(read: Document, columns: int = 80, rows: int | None = 24, **more: str) -> list[Row]:
    return draw(View(read, URL, **{"hint": "q: end", **more}), columns, rows)


def texts(rows: list[Row]) -> list[str]:
    return [text_of_row(row).rstrip() for row in rows]


def test_of_several_policies_a_line_says_how_far_each_is() -> None:
    named = [{**told()["policy"], "name": name} for name in ("pick", "place")]
    named[1] |= {"is_ready": False, "stage": "loading failed"}
    rows = texts(drawn(document(policies=named)))
    assert rows[1] == "policies  pick ready · place failed"
    assert "policies" not in "".join(texts(drawn(document(policies=named[:1]))))


def test_the_picture_in_80_columns() -> None:
    assert "\n".join(texts(drawn(document()))) + "\n" == PICTURE


def test_all_of_it_where_there_is_no_end() -> None:
    many = [session(number) for number in range(100)]
    told = texts(drawn(document(sessions=many), rows=None))
    assert sum("10.0.0.7:" in line for line in told) == 100
    assert "  front: expected uint8 (180, 320, 3), got float32 (90, 160, 3); send bytes" in told


def test_a_larger_terminal_shows_more() -> None:
    small, large = texts(drawn(document())), texts(drawn(document(), 160, 50))
    assert "       state float32 (7,)" in large
    assert "       state float32 (7,)" not in small
    assert max(map(len, large)) > 150


def test_seven_sessions_and_a_refusal_fit_into_24_rows() -> None:
    told = texts(drawn(document(sessions=[session(number) for number in range(7)])))
    assert len(told) == 24
    assert sum("10.0.0.7:" in line for line in told) == 7
    assert told[-2].startswith("bad_observation × 3")


def test_a_server_that_is_gone_is_said_in_the_last_row() -> None:
    rows = drawn(document(), trouble="nothing listens there: start the server. Asking again …")
    assert len(rows) == 24
    assert rows[-1][0] == ("nothing listens there: start the server. Asking again …", "yellow")
    assert "no answer" in text_of_row(rows[0])


def test_a_policy_that_loads_has_a_bar_and_one_that_failed_is_red() -> None:
    loading = {"stage": "downloading weights, 40 %", "is_ready": False}
    told = texts(drawn(document(policy=loading)))
    assert told[0].startswith("policyserve  not ready")
    assert told[1] == "[############..................] downloading weights, 40 %"
    failed = drawn(document(policy={"stage": "loading failed: no file", "is_ready": False}))
    assert [piece.style for piece in failed[1]] == ["red"]


def test_busy_is_of_the_whole_and_numbers_that_are_not_known_are_dashes() -> None:
    rows = texts(drawn(document()))
    assert any(line.startswith("busy %         46 ") for line in rows)
    assert any(line.startswith("p99 ms          – ") for line in rows)


def test_refusals_since_the_start_are_told_where_there_were_none_lately() -> None:
    numbers = {**told()["numbers"], "refused_lately": {}}
    assert "refused since the start: 4 bad_observation" in texts(drawn(document(numbers=numbers)))


@settings(max_examples=40)
@given(
    columns=st.integers(1, 200),
    rows=st.integers(1, 70),
    sessions=st.integers(0, 100),
    refusals=st.integers(0, 2),
    trouble=st.sampled_from(["", "it is gone " * 40]),
)
def test_it_fits_into_every_terminal(columns: int, rows: int, sessions: int, refusals: int, trouble: str) -> None:
    read = document(
        sessions=[session(number, peer="漢字" * 20, key="k" * 50) for number in range(sessions)],
        refusals=told()["refusals"][:refusals],
        policy={**told()["policy"], "takes": [leaf(f"camera {number}", "漢" * 60) for number in range(20)]},
    )
    shown = drawn(read, columns, rows, trouble=trouble)
    assert len(shown) <= rows
    assert max(width_of(text_of_row(row)) for row in shown) <= columns
