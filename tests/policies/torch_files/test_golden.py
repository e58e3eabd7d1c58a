"""Every golden case of torch programs: alone, in a batch, in sessions side by side, and over the wire."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import policyserve
from policyserve import Client, PolicyInput
from tests.policies.frameworks import import_or_skip
from tests.policies.golden_episodes import check_over_the_wire, check_side_by_side, infer
from tests.policies.torch_files.cases import (
    ALONE,
    LSTM,
    RAN,
    REFUSED,
    TOLERANCE,
    file_of,
    golden,
    observations,
    refused,
)
from tests.server.live import serving

import_or_skip("torch")


@pytest.mark.parametrize("case", ALONE)
def test_a_case_is_answered_as_by_torch_alone_and_in_a_batch(case: str) -> None:
    policy = policyserve.load_policy(f"torch:{file_of(case)}", **ALONE[case][1])
    (only, *others) = policy.spec.leaves
    inputs = [PolicyInput(one if others else {only: next(iter(one.values()))}) for one in observations(case)]
    wanted = golden(case)["actions"]
    for one, action in zip(inputs, wanted, strict=True):
        np.testing.assert_allclose(infer(policy, one)[0].actions, action, rtol=0, atol=TOLERANCE)
    together = np.stack([chunk.actions for chunk in infer(policy, *inputs)])
    np.testing.assert_allclose(together, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dialect", ["openpi", "vibe_rl"])
@pytest.mark.parametrize("case", ALONE)
def test_a_case_is_answered_over_the_wire_by_the_files_own_names(case: str, dialect: str) -> None:
    policy = policyserve.load_policy(str(file_of(case)), **ALONE[case][1])
    with serving(policy) as live, Client(f"ws://127.0.0.1:{live.port}/{dialect}", dialect=dialect) as client:
        (only, *others) = policy.spec.leaves
        for one, action in zip(observations(case), golden(case)["actions"], strict=True):
            sent = one if others else {only: next(iter(one.values()))}
            np.testing.assert_allclose(client.infer(sent).actions, action, rtol=0, atol=TOLERANCE)


def test_two_sessions_side_by_side_remember_what_each_alone_does() -> None:
    check_side_by_side(policyserve.load_policy(f"torch:{file_of(LSTM)}", obs="10"), golden(LSTM), TOLERANCE)


@pytest.mark.parametrize("dialect", ["openpi", "vibe_rl"])
def test_sessions_over_the_wire_remember_and_a_reset_and_a_new_one_begin_anew(dialect: str) -> None:
    with serving(policyserve.load_policy(str(file_of(LSTM)), obs="x=10")) as live:
        check_over_the_wire(live.url(f"/{dialect}"), dialect, golden(LSTM), TOLERANCE)


SPECS: dict[str, tuple[dict[str, str], str, int | None, str]] = {
    "jit_isaaclab_mlp": ({"obs": "float32 (45,)"}, "float32 (12,)", None, "TorchScript program"),
    "export_mlp_static": ({"obs": "float32 (8,)"}, "float32 (3,)", None, "program of torch.export"),
    "export_image_dynamic": (
        {"image": "float32 (3, 36, 48)", "state": "float32 (5,)"}, "float32 (3,)", 4, "program of torch.export",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ALONE)
def test_the_spec_is_derived_from_the_file(case: str) -> None:
    spec = policyserve.load_policy(str(file_of(case)), **ALONE[case][1]).spec
    found = {path: str(leaf) for path, leaf in spec.leaves.items()}
    assert (found, str(spec.action), spec.horizon, spec.metadata["format"]) == SPECS[case]
    assert (spec.max_batch, spec.max_client_batch, spec.metadata["backend"]) == (64, 1024, "torch")


def test_a_program_that_remembers_takes_no_batches_of_a_clients_own() -> None:
    spec = policyserve.load_policy(str(file_of(LSTM)), obs="10").spec
    assert (spec.max_batch, spec.max_client_batch) == (64, 0)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_to_refuse_is_refused_in_one_line_and_runs_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = refused(name)
    with pytest.raises(policyserve.ConfigError) as raised:
        policyserve.load_policy(f"torch:{path}", obs="45" if "torchscript" in name else None)
    assert str(raised.value).startswith(f"{path}: {REFUSED[name]}")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / RAN).exists()
