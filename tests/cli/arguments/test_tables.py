"""Tables of a file, and words, say which policies there are; what is wrong is told with its line."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve.cli.arguments.setting import Setting
from policyserve.cli.arguments.tables import is_named, is_of_tables, named, policies_in, routes_in
from policyserve.core.errors import ConfigError
from policyserve.server.splits import Split


def settings(**values: Any) -> list[Setting]:
    """As a file has them: __ for a dot."""
    names = [(name.replace("__", "."), value) for name, value in values.items()]
    return [
        Setting(name, value, f"lab.toml: line {line}", f"lab.toml: line {line}: {name}")
        for line, (name, value) in enumerate(names, 1)
    ]


def routes(**values: Any) -> list[Setting]:
    return [one for one in settings(**{f"routes__/{name}": value for name, value in values.items()})]


def test_each_table_is_a_policy_with_its_source_and_its_flags_in_their_order() -> None:
    tables = policies_in(
        settings(
            policies__b_1__source="onnx:b.onnx", policies__b_1__max_queue=3, policies__a__source="cartpole_ppo", port=1
        )
    )
    assert [(table.name, table.source.value) for table in tables] == [("b_1", "onnx:b.onnx"), ("a", "cartpole_ppo")]
    assert [(one.name, one.value) for one in tables[0].settings] == [("max-queue", 3)]
    assert tables[1].settings == ()


def test_a_route_has_shares_a_seed_and_may_tell() -> None:
    given = routes(arm__split__v1=0.5, arm__split__v_2=1, arm__seed=7, arm__blind=False, other__split__v1=1)
    assert routes_in(given) == {"/arm": Split({"v1": 0.5, "v_2": 1.0}, 7, False), "/other": Split({"v1": 1.0})}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (settings(policies={}), "line 1: policies: expected tables"),
        (settings(policies__a={}), "line 1: policies.a: expected a source"),
        (settings(policies__a__port=1, policies__a__sorce="x"), "line 2: policies.a: expected a source"),
        (settings(**{"policies__a b__source": "x"}), "line 1: policies.a b: expected a name of letters"),
        (settings(policies__a__source="x", policies__a__b_c=1, **{"policies__a__b-c": 2}), "stands there again"),
    ],
)
def test_what_is_wrong_with_a_policys_table_is_told_with_its_line(given: list[Setting], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        policies_in(given)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (settings(routes__arm__split__v1=1), 'expected a path, as in [routes."/arm"]'),
        (settings(routes={}), "expected a path"),
        (routes(arm={}), 'routes."/arm": expected shares of 0 or more'),
        (routes(arm__split="v1"), "expected shares of 0 or more"),
        (routes(arm__split__v1="half"), "got 'half'"),
        (routes(arm__split__v1=True), "expected shares"),
        (routes(arm__split__v1=1, arm__seed=1.5), "line 2: routes./arm.seed: expected a whole number, got 1.5"),
        (routes(arm__split__v1=1, arm__blind="yes"), "expected true or false"),
        (routes(arm__split__v1=1, arm__policy="v1"), "unknown key policy; a route has split, seed and blind"),
    ],
)
def test_what_is_wrong_with_a_route_is_told_with_its_line(given: list[Setting], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        routes_in(given)
    assert told in str(refused.value)


def test_words_name_policies_and_a_name_alone_is_its_own() -> None:
    found = named(["pick=lerobot:runs/a=1", "cartpole_ppo"], {})
    assert [(one.name, one.source.value) for one in found] == [("pick", "lerobot:runs/a=1"), ("cartpole_ppo",) * 2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a=x", "a=y"], "a=y: two policies are named a: give one another, as in a2=y"),
        (["file=x"], "two policies are named file"),
        (["a=x", "onnx:b.onnx"], "onnx:b.onnx: one of several policies needs a name: NAME=onnx:b.onnx"),
        (["a="], "expected what to serve behind the name"),
        (["a b=x"], "expected a name of letters"),
    ],
)
def test_what_is_wrong_with_a_word_is_told(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        named(words, {"file": None})
    assert told in str(refused.value)


def test_a_path_may_have_the_sign_of_a_name_behind_its_first_folder() -> None:
    assert is_named("pick=runs/lr=3")
    assert not any(map(is_named, ("runs/lr=3", "lerobot:runs/lr=3", "cartpole_ppo", "my.py:policy")))
    assert is_of_tables("policies.a.source")
    assert is_of_tables("routes./arm.split.v1")
    assert not is_of_tables("policy")
