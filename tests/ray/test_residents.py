"""Which sessions a replica takes for its own."""

from __future__ import annotations

import pytest

from policyserve.core.errors import PolicyLost
from policyserve.ray.residents import Residents


def test_a_session_without_a_token_begins_anew_and_its_token_goes_on() -> None:
    residents = Residents()
    assert residents.token("edge 1") is None
    assert residents.admit("edge 1", None, 0.0)
    token = residents.token("edge 1")
    assert not residents.admit("edge 1", token, 1.0)
    assert residents.token("edge 1") == token
    assert residents.admit("edge 1", None, 2.0)
    assert residents.token("edge 1") != token


@pytest.mark.parametrize("whose", ["another replica", "a life before", "another session", "forgotten", "no token"])
def test_a_token_that_is_not_the_sessions_own_is_refused(whose: str) -> None:
    residents, other = Residents(), Residents()
    for one in (residents, other):
        one.admit("edge 1", None, 0.0)
        one.admit("edge 2", None, 0.0)
    token = residents.token("edge 1")
    if whose == "another replica":
        token = other.token("edge 1")
    elif whose == "a life before":
        residents.admit("edge 1", None, 1.0)
    elif whose == "another session":
        token = residents.token("edge 2")
    elif whose == "forgotten":
        assert residents.forget("edge 1", token)
    else:
        token = "made up"
    with pytest.raises(PolicyLost, match="what the policy remembered"):
        residents.admit("edge 1", token, 2.0)


def test_only_the_present_life_is_forgotten() -> None:
    residents = Residents()
    assert not residents.forget("edge 1", None)
    residents.admit("edge 1", None, 0.0)
    before = residents.token("edge 1")
    residents.admit("edge 1", None, 1.0)
    assert not residents.forget("edge 1", before)
    assert residents.forget("edge 1", residents.token("edge 1"))
    assert residents.token("edge 1") is None


def test_who_was_silent_is_forgotten_and_told() -> None:
    residents = Residents()
    residents.admit("edge 1", None, 0.0)
    residents.admit("edge 2", None, 0.0)
    residents.admit("edge 2", residents.token("edge 2"), 5.0)
    assert residents.forget_silent(5.0) == ["edge 1"]
    assert residents.forget_silent(5.0) == []
