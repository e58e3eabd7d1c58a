from __future__ import annotations

import pytest

from policyserve.server.gr00t.senders import Senders


def name(number: int) -> bytes:
    """As ROUTER gives them."""
    return b"\0" + (number % (1 << 32)).to_bytes(4, "big")


@pytest.mark.parametrize("first", [7, (1 << 32) - 1, (1 << 31) - 1])
def test_a_message_of_a_connection_that_is_gone_is_not_taken_for_the_next_ones(first: int) -> None:
    senders = Senders()
    assert senders.judge(20, name(first), b"") == "its own"
    assert senders.judge(20, name(first), name(first)) == "its own"
    assert senders.judge(20, name(first), b"") == "gone", "another connection has the descriptor, and was not heard yet"
    assert senders.judge(20, name(first + 1), b"") == "its own"
    assert senders.judge(20, name(first), name(first + 1)) == "gone"
    assert senders.judge(20, name(first + 1), name(first + 1)) == "its own"


def test_a_message_that_was_taken_for_the_next_ones_gives_way_to_that() -> None:
    senders = Senders()
    assert senders.judge(20, name(7), b"") == "its own", "nothing tells yet that it is of one that is gone"
    assert senders.judge(20, name(9), name(7)) == "another's"
    assert senders.judge(20, name(8), name(9)) == "gone"
    assert senders.judge(21, name(3), b"") == "its own", "of another descriptor"


def test_a_client_with_a_name_of_its_own_may_come_back_under_it() -> None:
    senders = Senders()
    assert senders.judge(20, b"robot", b"") == "its own"
    assert senders.judge(20, b"robot", b"") == "its own"
    assert senders.judge(20, name(7), b"robot") == "another's"
