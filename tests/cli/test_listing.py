"""`policyserve list`: what can be served, and what is installed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserve.cli import listing
from policyserve.cli.extras import Extra
from policyserve.policies import registry
from tests.cli.terminals import COLUMNS, WHERE, Where, plain, run_in


def sections(text: str) -> dict[str, str]:
    """The text below each title."""
    parts = [part.partition("\n") for part in text.split("\n\n")]
    return {title.partition(":")[0]: body for title, _, body in parts}


@pytest.mark.parametrize("where", WHERE)
def test_every_policy_is_listed_with_what_it_is_within_80_columns(where: Where) -> None:
    said = run_in(where, ["list"])
    assert (said.code, said.err) == (0, "")
    assert max(map(len, plain(said.out).splitlines())) <= COLUMNS
    for name in registry.listing():
        assert f"\n  {name} " in plain(said.out)


def test_demos_stand_apart_from_what_needs_files_of_the_users() -> None:
    told = sections(run_in("pipe", ["list"]).out)
    assert list(told) == ["demos", "with files of yours", "by scheme", "your own", "extras"]
    for name in ("cartpole_ppo", "pendulum_sac", "demo_flow", "demo_image"):
        assert f"  {name} " in told["demos"]
    for name in ("cartpole_dqn", "wall-x"):
        assert f"  {name} " in told["with files of yours"]


def test_an_extra_says_what_is_missing_and_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Extra("fast", ("uvloop",), ()), Extra("jax", ("equinox", "jax"), ("equinox", "jax"))]
    monkeypatch.setattr(listing, "extras", lambda: found)
    told = sections(run_in("pipe", ["list"]).out)["extras"]
    assert "installed: uvloop" in told
    assert "equinox, jax missing: pip install 'policyserve[jax]'" in " ".join(told.split())
    monkeypatch.setattr(listing, "extras", list)
    assert "extras: unknown, since policyserve is not installed as a package" in run_in("pipe", ["list"]).out


def test_a_scheme_of_a_package_has_a_section_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"onnx:FILE": "an ONNX model", "broken": "broken: the adapter of x fails", registry.OWN: "a policy"}
    monkeypatch.setattr(registry, "listing", lambda: told)
    found = sections(run_in("pipe", ["list"]).out)
    assert "onnx:FILE" in found["by scheme"]
    assert "the adapter of x fails" in found["installed, and broken"]
