"""FAST's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input
from tests.policies.wall_x.golden import FAST_CASES

torch = import_or_skip("torch")
dispatching = import_or_skip("torch.utils._python_dispatch")

from policyserve.policies.wall_x.generate import Generator  # noqa: E402
from policyserve.policies.wall_x.graphs import Work  # noqa: E402
from policyserve.policies.wall_x.model import load_model  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, tiny_input, write_tiny  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def run_at_once(work: Work) -> Work:
    return work


@pytest.mark.parametrize("name", FAST_CASES)
def test_the_tokens_are_the_originals(name: str) -> None:
    case = golden_case(name)
    assert loaded(case.directory).generate([golden_input(case)]) == [case["fast/new_ids"].tolist()]


@pytest.mark.parametrize("name", FAST_CASES)
def test_the_logits_of_the_first_steps_are_the_originals(name: str) -> None:
    case = golden_case(name)
    generator, item = Generator(loaded(case.directory).network), golden_input(case)
    with torch.inference_mode():
        state, logits = generator.prepare([item], 8)
        assert largest(logits[0].numpy() - case["fast/prefill_last_logits"]) < 5e-4
        for step, wanted in enumerate(case["fast/step_logits_first8"]):
            assert largest(logits[0].numpy() - wanted) < 5e-4, step
            stop = len(item.input_ids) + step + 1
            logits = generator.step(state, stop, is_even=True) if step < 7 else logits


def test_sequences_of_several_lengths_leave_as_they_end() -> None:
    cases = [golden_case(name) for name in ("fast_bad_length", "fast_libero_h10_textprefix", "fast_no_eos_100")]
    model = loaded(cases[0].directory)
    made = model.generate([golden_input(case) for case in cases])
    assert made == [case["fast/new_ids"].tolist() for case in cases]
    assert sorted(len(ids) for ids in made) == [24, 37, 100]


def test_the_limit_holds() -> None:
    case = golden_case("fast_libero_1")
    model, item = loaded(case.directory), golden_input(case)
    for limit in (0, 1, 7):
        assert model.generate([item, item], max_new_tokens=limit) == [case["fast/new_ids"][:limit].tolist()] * 2


def test_bfloat16_makes_the_same_tokens() -> None:
    case = golden_case("fast_libero_1")
    assert loaded(case.directory, "bfloat16").generate([golden_input(case)]) == [case["fast/new_ids"].tolist()]


def test_room_that_nobody_uses_changes_nothing() -> None:
    case = golden_case("fast_bad_length")
    network, item = loaded(case.directory).network, golden_input(case)
    with torch.inference_mode():
        assert Generator(network, slot_multiple=64).run([item], 100) == [case["fast/new_ids"].tolist()]
        generator = Generator(network, slot_multiple=64)
        state, _ = generator.prepare([item], 100)
        logits = generator.step(state, state.cache.keys.shape[3])
    assert largest(logits[0].numpy() - case["fast/step_logits_first8"][1]) < 5e-4


class Watch(dispatching.TorchDispatchMode):
    """Notes how many rows and slots each attention reads, and the shapes of the caches that are copied row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[int, int]] = []
        self.copied: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if "scaled_dot_product" in name and args[0].dim() == 4:
            self.read.append((args[1].shape[0], args[1].shape[2]))
        if name in ("index", "index_select") and args[0].dim() == 5:
            self.copied.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("multiple", [1, 64])
def test_steps_read_the_slots_in_use_and_the_cache_is_copied_only_without_half_of_its_rows(
    multiple: int, captured: bool
) -> None:
    """Of the answers of 24, 37 and 100 tokens: the first end leaves two rows of three, the second one of three."""
    cases = [golden_case(name) for name in ("fast_bad_length", "fast_libero_h10_textprefix", "fast_no_eos_100")]
    items = [golden_input(case) for case in cases]
    network = loaded(cases[0].directory).network
    generator = Generator(network, slot_multiple=multiple, capture=run_at_once if captured else None)
    with torch.inference_mode():
        generator.run(items, 100)
        with Watch() as watch:
            made = generator.run(items, 100)
    assert made == [case["fast/new_ids"].tolist() for case in cases]
    layers = network.architecture.layers
    read = watch.read[-99 * layers :]  # without the images' and the prompts'
    prompts = [len(item.input_ids) for item in items]
    in_use = [max(prompts[row] + step for row in range(3) if step < len(made[row])) for step in range(1, 100)]
    slots = [slots for _, slots in read[::layers]]
    rows = [rows for rows, _ in read[::layers]]
    least = -(-(max(prompts) + 100) // multiple) * multiple - 2 * multiple  # graphs are three
    assert slots == [max(-(-most // multiple) * multiple, least if captured else 0) for most in in_use]
    assert rows == [4 if captured else 3] * 36 + [1] * 63
    assert [shape[1] for shape in watch.copied] == [rows[0]] * 2  # keys and values, once


def test_a_prompt_with_action_tokens_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    with pytest.raises(ValueError, match="a prompt for FAST ends before any action token"):
        model.generate([tiny_input(model, 5)])
    assert model.generate([]) == []


def test_an_end_token_ends_at_once(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    with torch.inference_mode():
        model.network.decoder.embed_tokens.zero_()
        model.network.decoder.embed_tokens[model.architecture.eos_id] = 1.0
        model.network.decoder.embed_tokens[10:] = 1.0
    items = [tiny_input(model, 5, actions=0, seed=seed) for seed in range(3)]
    made = model.generate(items, max_new_tokens=4)
    assert all(len(ids) <= 4 and ids[0] == np.int64(ids[0]) for ids in made)
