"""A catalogue knows which policy, and which dialect, a path means."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from policyserve.core.errors import ConfigError
from policyserve.server.catalogue import Catalogue, check_name
from policyserve.server.splits import Split


@dataclass(frozen=True)
class Policy:
    name: str
    is_named: bool = True


PICK, PLACE, V1, V2 = (Policy(name) for name in ("pick", "place", "v1", "v2"))
ARM = Split({"v1": 0.5, "v2": 0.5}, seed=1)
SEVERAL = Catalogue([PICK, PLACE, V1, V2], {"/arm": ARM})
PLAIN = Catalogue([Policy("default", is_named=False)])


def led(catalogue: Catalogue[Policy], path: str) -> tuple[list[str], str | None] | None:
    target = catalogue.resolve(path)
    if target is None:
        return None
    return [policy.name for policy in target.policies], target.dialect.name if target.dialect else None


@pytest.mark.parametrize(
    ("path", "names", "dialect"),
    [
        ("/", ["pick"], None),
        ("", ["pick"], None),
        ("/openpi", ["pick"], "openpi"),
        ("/place", ["place"], None),
        ("/place/", ["place"], None),
        ("/place/vibe_rl", ["place"], "vibe_rl"),
        ("/arm", ["v1", "v2"], None),
        ("/arm/wall_x", ["v1", "v2"], "wall_x"),
    ],
)
def test_a_path_names_a_policy_a_dialect_or_both(path: str, names: list[str], dialect: str | None) -> None:
    assert led(SEVERAL, path) == (names, dialect)


@pytest.mark.parametrize("path", ["/pik", "/place/openpie", "/openpi/place", "/place/openpi/more", "/place/v1"])
def test_any_other_path_of_several_leads_nowhere(path: str) -> None:
    assert SEVERAL.resolve(path) is None


def test_who_asks_for_none_is_told_what_there_is() -> None:
    told = "no policy is at '/pik' (did you mean /pick?): there are /pick, /place, /v1, /v2, /arm"
    assert SEVERAL.unknown("/pik") == told
    assert SEVERAL.unknown("/place/openpie").startswith("no dialect is named 'openpie': /place takes all")


@pytest.mark.parametrize("path", ["/", "/anything", "/any/thing", "/default"])
def test_every_path_is_the_only_policys_that_has_no_name(path: str) -> None:
    assert led(PLAIN, path) == (["default"], None)


def test_the_only_policy_that_has_no_name_is_found_by_dialects_as_ever() -> None:
    assert led(PLAIN, "/openpi") == (["default"], "openpi")


def test_one_policy_with_a_name_has_that_name() -> None:
    one = Catalogue([PICK])
    assert led(one, "/") == led(one, "/pick") == (["pick"], None)
    assert one.resolve("/plac") is None


def test_a_route_may_stand_for_the_default() -> None:
    catalogue = Catalogue([PICK, V1, V2], {"/": ARM})
    assert led(catalogue, "/openpi") == (["v1", "v2"], "openpi")
    assert led(catalogue, "/pick") == (["pick"], None)


def test_only_a_split_draws() -> None:
    plain, split = SEVERAL.resolve("/place"), SEVERAL.resolve("/arm")
    assert plain is not None
    assert split is not None
    assert SEVERAL.choose(plain) is PLACE
    assert {SEVERAL.choose(split).name for _ in range(50)} == {"v1", "v2"}


@pytest.mark.parametrize("name", ["", "a/b", "-x", ".", "ü", "a b", "a" * 65, "pick\n", "v1.2"])
def test_a_name_is_a_part_of_a_path(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name of letters, digits"):
        check_name(name)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"policies\.pick: two policies have this name"):
        Catalogue([PICK, PICK])


def test_a_route_to_none_is_refused_with_those_that_there_are() -> None:
    told = r"""routes."/arm": no policy is named 'v3': there are v1"""
    with pytest.raises(ConfigError, match=told):
        Catalogue([V1], {"/arm": Split({"v1": 1, "v3": 1})})


def test_a_route_with_a_policys_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="a policy has this name: choose another path"):
        Catalogue([V1, V2], {"/v1": ARM})


def test_a_name_that_is_a_dialect_or_a_page_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policies\.openpi: /openpi is the dialect openpi: choose another name"):
        Catalogue([Policy("openpi")])
    with pytest.raises(ConfigError, match=r'routes."/wall_x": /wall_x is the dialect wall_x'):
        Catalogue([V1, V2], {"/wall_x": ARM})
    with pytest.raises(ConfigError, match=r"policies\.pick: /pick is the page /pick/it: choose another name"):
        SEVERAL.check_taken(["/healthz", "/pick/it"], [])
    PLAIN.check_taken(["/default"], ["default"])


def test_a_policy_is_found_by_its_name() -> None:
    assert SEVERAL.named("v1") is V1
    assert SEVERAL.names == ("pick", "place", "v1", "v2")
    with pytest.raises(ConfigError, match="no policy is named 'v9'"):
        SEVERAL.named("v9")
    assert {path: draws.split for path, draws in SEVERAL.routes.items()} == {"/arm": ARM}
    assert len(SEVERAL) == 4


def test_no_policies_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one or more, got none"):
        Catalogue([])
