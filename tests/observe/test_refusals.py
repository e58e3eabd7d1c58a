"""The last refusals, as people read them."""

from __future__ import annotations

from policyserve.core.errors import BadObservation, Overloaded, PolicyFailed
from policyserve.observe.refusals import Refusals

WRONG = BadObservation("image", "uint8 image", "float32 (3,)", "send uint8 0 … 255")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def refusals(clock: Clock | None = None) -> Refusals:
    return Refusals(lambda session: f"10.0.0.{session % 2}:{5000 + session}", clock or Clock())


def test_a_refusal_tells_path_expected_and_got() -> None:
    kept = refusals()
    kept.on_refusal(3, 1, WRONG)
    (told,) = kept.described()
    assert told["code"] == "bad_observation"
    assert (told["session"], told["peer"]) == (3, "10.0.0.1:5003")
    assert (told["path"], told["expected"], told["got"]) == ("image", "uint8 image", "float32 (3,)")
    assert told["hint"] == "send uint8 0 … 255"


def test_an_error_that_is_no_refusal_tells_its_text() -> None:
    kept = refusals()
    kept.on_refusal(3, 1, PolicyFailed("it raised"))
    (told,) = kept.described()
    assert (told["code"], told["text"], told["expected"]) == ("policy_failed", "it raised", "")


def test_what_one_address_repeats_counts_up_and_is_the_newest() -> None:
    clock = Clock()
    kept = refusals(clock)
    kept.on_refusal(1, 1, WRONG)
    kept.on_refusal(2, 1, Overloaded("full"))
    clock.now += 7
    kept.on_refusal(3, 1, WRONG)
    clock.now += 2
    first, second = kept.described()
    assert (first["code"], first["count"], first["session"], first["ago_s"]) == ("bad_observation", 2, 3, 2.0)
    assert (second["code"], second["count"], second["ago_s"]) == ("overloaded", 1, 9.0)


def test_only_so_many_are_kept_and_their_texts_are_bounded() -> None:
    kept = refusals()
    for number in range(200):
        kept.on_refusal(1, number, BadObservation(f"{number}" + "a" * 10_000, "b" * 10_000, "c" * 10_000, "d" * 10_000))
    told = kept.described()
    assert len(told) == 50
    assert told[0]["path"].startswith("199")
    assert all(len(str(one[part])) <= 300 for one in told for part in ("text", "path", "expected", "got", "hint"))


def test_a_text_of_a_stranger_has_one_line() -> None:
    kept = refusals()
    kept.on_refusal(1, 1, BadObservation("a\nb", "c\x1b[31m", "d\ud800"))
    (told,) = kept.described()
    assert all(str(told[part]).isprintable() for part in ("text", "path", "expected", "got"))


def test_handshakes_and_replaced_policies_are_kept_too() -> None:
    kept = refusals()
    kept.note_handshake("10.0.0.9:1", "http_401", "an API key is needed")
    kept.note_handshake("10.0.0.9:2", "http_401", "an API key is needed")
    kept.on_policy_replaced("replica 1", "its process died")
    replaced, refused = kept.described()
    assert (replaced["code"], replaced["text"]) == ("policy_replaced", "replica 1: its process died")
    assert (refused["code"], refused["count"], refused["peer"]) == ("http_401", 2, "10.0.0.9:2")
    assert refused["session"] is None
