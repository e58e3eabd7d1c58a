"""`policyserve list`: the policies that can be served, and the extras that are installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from policyserve.cli.arguments.help_page import entry
from policyserve.cli.colours import coloured
from policyserve.cli.extras import extras
from policyserve.cli.terminal import take_no_arguments
from policyserve.core.errors import ConfigError
from policyserve.policies import registry

_DEMOS = "demos: policyserve serve NAME"
_NEEDY = "with files of yours: policyserve serve NAME --help tells which"
_SCHEMES = "by scheme"
_OWN = "your own"
_BROKEN = "installed, and broken"
_TITLES = (_DEMOS, _NEEDY, _SCHEMES, _OWN, _BROKEN)


def main(argv: Sequence[str]) -> None:
    """Print the list; exits with 0 after --help, with 2 for any other word."""
    take_no_arguments(argv, "policyserve list", "Which policies can be served, and which extras are installed.")
    print("\n".join([*_policies(), *_extras()]))


def _policies() -> list[str]:
    told = registry.listing()
    titles = {name: _title(name) for name in told}
    return [line for title in _TITLES for line in _section(title, {n: told[n] for n in told if titles[n] == title})]


def _section(title: str, told: Mapping[str, str]) -> list[str]:
    lines = [line for name, purpose in told.items() for line in entry(name, purpose)]
    return [coloured(title, "bold", sys.stdout), *lines, ""] if lines else []


def _title(name: str) -> str:
    """Under which title a policy is listed: by what it needs to be served."""
    if name == registry.OWN:
        return _OWN
    if ":" in name:
        return _SCHEMES
    try:
        adapter = registry.find(name)
    except ConfigError:
        return _BROKEN
    try:
        adapter.source(adapter.defaults(None))
    except ConfigError:
        return _NEEDY
    return _DEMOS


def _extras() -> list[str]:
    found = extras()
    if not found:
        return ["extras: unknown, since policyserve is not installed as a package"]
    lines = [coloured("extras", "bold", sys.stdout)]
    for extra in found:
        missing = f"{', '.join(extra.missing)} missing: pip install 'policyserve[{extra.name}]'"
        lines += entry(extra.name, missing if extra.missing else f"installed: {', '.join(extra.packages)}")
    return lines
