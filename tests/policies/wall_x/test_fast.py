"""FAST tokens to actions, equal to the original's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserve.core.errors import BadAction, ConfigError
from policyserve.policies.wall_x.fast import FastTokenizer, load_fast_tokenizer
from tests.policies.wall_x.golden import FAST_CASES, UNDECODABLE, facts, golden, tensors

ENTRIES = range(14)


@pytest.mark.parametrize("index", ENTRIES)
def test_ids_decode_to_the_originals_numbers_or_are_an_error(index: int) -> None:
    arrays, entry = tensors("unit_fast_decode_public"), facts("unit_fast_decode_public")["entries"][index]
    tokenizer = load_fast_tokenizer(golden("fast_tokenizer"))
    ids = arrays[f"ids_{index}"].tolist()
    assert [ord(letter) for letter in tokenizer.characters(ids)] == arrays[f"codepoints_{index}"].tolist()
    if entry["valid"]:
        decoded = tokenizer.decode(ids, entry["H"], entry["D"])
        np.testing.assert_allclose(decoded, arrays[f"decoded_{index}"], rtol=1e-13, atol=1e-13)
        assert decoded.dtype == np.float64
    else:
        with pytest.raises(BadAction, match=f"expected {entry['H']} × {entry['D']} .* got {entry['n_chars']}"):
            tokenizer.decode(ids, entry["H"], entry["D"])


@pytest.mark.parametrize("name", [name for name in FAST_CASES if name not in UNDECODABLE])
def test_a_golden_cases_action_ids_decode(name: str) -> None:
    arrays, case = tensors(name), facts(name)
    decoded = load_fast_tokenizer(golden("fast_tokenizer")).decode(
        arrays["fast/action_ids"].tolist(), case["horizon"], case["action_dim"]
    )
    np.testing.assert_allclose(decoded, arrays["fast/decoded_normalised"], rtol=1e-13, atol=1e-13)


def test_a_token_with_a_letter_outside_the_byte_alphabet_is_its_own_utf8() -> None:
    tokenizer = FastTokenizer({0: "Ġ", 1: "Ġ\n", 2: "Ã", 3: "©"}, 10, 0)
    assert tokenizer.characters([0]) == " "
    assert tokenizer.characters([1]) == "Ġ\n"
    assert tokenizer.characters([2, 3]) == "é"
    assert tokenizer.characters([2, 0]) == "\ufffd "


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "processor_config.json: expected a FAST tokenizer's JSON"),
        ({"processor_config.json": "[]"}, "expected a JSON object, got list"),
        ({"processor_config.json": "{}"}, "tokenizer.json: expected a FAST"),
        ({"processor_config.json": "{}", "tokenizer.json": "{}"}, "expected a BPE tokenizer"),
        (
            {"processor_config.json": '{"scale": 0, "min_token": 1}', "tokenizer.json": '{"model": {"vocab": {}}}'},
            "the numbers scale and min_token",
        ),
    ],
)
def test_a_directory_that_is_no_fast_tokenizer_is_named(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=reason):
        load_fast_tokenizer(tmp_path)
