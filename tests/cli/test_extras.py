"""Which optional packages there are, and which of them are installed."""

from __future__ import annotations

from importlib import metadata

import pytest

from policyserve.cli.extras import Extra, extras, version_of

REQUIRES = [
    "numpy>=1.26",
    "async-timeout>=4.0.3; python_version < '3.11'",
    "numpy>=1; sys_platform != 'win32' and extra == 'fast'",
    'nobody-has-this>=0.4 ; extra == "jax"',
    "msgpack>=1; extra == 'jax'",
    "policyserve[jax,fast]; extra == 'train'",
    "numpy; extra == 'test'",
    "numpy; extra == 'lint'",
]


def test_an_extra_has_the_packages_of_those_in_it_and_says_which_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    assert extras() == [
        Extra("fast", ("numpy",), ()),
        Extra("jax", ("nobody-has-this", "msgpack"), ("nobody-has-this",)),
        Extra("train", ("nobody-has-this", "msgpack", "numpy"), ("nobody-has-this",)),
    ]


def test_a_checkout_that_is_not_installed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert extras() == []


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert version_of("numpy") == metadata.version("numpy")
    assert version_of("nobody-has-this") is None
