"""`policyserve list`: the policies that can be served, and the extras that are installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyserve.cli.extras import extras
from policyserve.cli.help_page import entry
from policyserve.cli.terminal import take_no_arguments
from policyserve.core.errors import ConfigError
from policyserve.policies import registry


def main(argv: Sequence[str]) -> None:
    """Print the list; exits with 0 after --help, with 2 for any other word."""
    take_no_arguments(argv, "policyserve list", "Which policies can be served, and which extras are installed.")
    print("\n".join([*_policies(), *_extras()]))


def _policies() -> list[str]:
    told = registry.listing()
    schemes = {name for name in told if ":" in name and name != registry.OWN}
    demos = {name for name in told if name not in (*schemes, registry.OWN) and _is_served_as_it_is(name)}
    others = told.keys() - schemes - demos - {registry.OWN}
    return [
        *_section("demos: policyserve serve NAME", told, demos),
        *_section("with files of yours: policyserve serve NAME --help tells which", told, others),
        *_section("by scheme", told, schemes),
        *_section("your own", told, {registry.OWN}),
    ]


def _section(title: str, told: Mapping[str, str], names: set[str]) -> list[str]:
    lines = [line for name, purpose in told.items() if name in names for line in entry(name, purpose)]
    return [title, *lines, ""] if lines else []


def _is_served_as_it_is(name: str) -> bool:
    """Whether a policy needs no flags: a demo comes with it."""
    try:
        adapter = registry.find(name)
        adapter.source(adapter.defaults(None))
    except ConfigError:
        return False
    return True


def _extras() -> list[str]:
    found = extras()
    if not found:
        return ["extras: unknown, since policyserve is not installed as a package"]
    lines = ["extras"]
    for extra in found:
        missing = f"{', '.join(extra.missing)} missing: pip install 'policyserve[{extra.name}]'"
        lines += entry(extra.name, missing if extra.missing else f"installed: {', '.join(extra.packages)}")
    return lines
