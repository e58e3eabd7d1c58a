"""The policies that a running server is asked for, named with their flags as `policyserve serve` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from tyro.conf import arg

from policyserve.cli.arguments import help_page
from policyserve.cli.policies import find_source, read_flags
from policyserve.cli.terminal import complaints_raised
from policyserve.core.errors import ConfigError
from policyserve.policies import registry
from policyserve.policies.registry import Source
from policyserve.server.exchange import FoundPolicy

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class SourceFlags(Generic[PolicyFlagsT]):
    """The flags of a policy that takes the place of another one."""

    policy: Annotated[PolicyFlagsT, arg(name="")]


def find_named(named: str, flags: Sequence[str]) -> FoundPolicy:
    """The policy that these words name; raises ConfigError for what cannot be served, and MissingDependency."""
    source = source_of(named, flags)
    return FoundPolicy(source.recipe, source.title)


def source_of(named: str, flags: Sequence[str]) -> Source:
    """Where it comes from; raises as find_named()."""
    if help_page.wanted(flags) is not None:
        raise ConfigError(f"flags: expected those of {named}; `policyserve serve {named} --help` tells them")
    with complaints_raised():
        adapter = registry.find(named)
        read = read_flags(adapter, lambda policy: SourceFlags(policy), f"policyserve serve {named}", flags)
        return find_source(adapter, read.policy)
