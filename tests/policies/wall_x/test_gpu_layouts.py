"""The network with attention results laid out as GPUs lay them out: the same numbers as on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input

torch = import_or_skip("torch")
F = torch.nn.functional

from policyserve.policies.wall_x import flow  # noqa: E402
from policyserve.policies.wall_x.attention import AttentionMode  # noqa: E402
from tests.policies.wall_x.gpu_attention import CARDS, Card, attention_of  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FLOW = [
    ("flow_libero_basic", "upstream_sdpa"),
    ("flow_libero_odd_sizes", "causal"),
    ("flow_aloha_basic", "bidir_island"),
]


@pytest.fixture(params=CARDS)
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Card:
    """Every call of attention answers as this card does."""
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention_of(request.param, F.scaled_dot_product_attention))
    return request.param


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(("name", "mode"), FLOW)
def test_actions_are_the_originals_in_every_layout(name: str, mode: AttentionMode) -> None:
    case = golden_case(name)
    (actions,) = loaded(case.directory).flow([golden_input(case)], attention=mode, num_steps=case.steps)
    assert largest(actions - case[f"{mode}/x"][-1]) < 1e-4


@pytest.mark.usefixtures("card")
def test_a_padded_batch_is_the_originals_in_every_layout() -> None:
    case = golden_case("flow_batch2_padding")
    items = [golden_input(case, sample) for sample in range(2)]
    answers = loaded(case.directory).flow(items, attention="upstream_sdpa")
    assert largest(np.stack(answers) - case["upstream_sdpa/action_norm"]) < 1e-4


@pytest.mark.usefixtures("card")
def test_tokens_are_the_originals_in_every_layout() -> None:
    case = golden_case("fast_libero_1")
    assert loaded(case.directory).generate([golden_input(case)]) == [case["fast/new_ids"].tolist()]


def view_of_stacked_rows(queries: Any, keys: Any, values: Any, bias: Any) -> Any:
    """grouped_attention as it must not be: its view holds for the layout of a CPU alone."""
    batch, heads, length, width = queries.shape
    stacked = queries.reshape(batch, keys.shape[1], -1, width)
    out = F.scaled_dot_product_attention(stacked, keys, values, attn_mask=bias)
    return out.view(batch, heads, length, width).transpose(1, 2).flatten(2)


def test_a_view_that_holds_on_a_cpu_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "grouped_attention", view_of_stacked_rows)
    case = golden_case("flow_libero_basic")
    model, item = loaded(case.directory), golden_input(case)
    model.flow([item], attention="causal")
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention_of("float32", F.scaled_dot_product_attention))
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        model.flow([item], attention="causal")
