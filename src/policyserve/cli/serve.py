"""`policyserve serve`: load a policy and answer until a signal comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from tyro.conf import arg

from policyserve.cli import help_page
from policyserve.cli.configuration import Configuration, ConfigurationFlags, read_configuration
from policyserve.cli.flags import flags_of
from policyserve.cli.parsing import parse
from policyserve.cli.policies import find_adapter, find_source, overview, read_flags, take_policy
from policyserve.cli.serving import serve_until_stopped
from policyserve.cli.terminal import ARGUMENT_ERROR, complain
from policyserve.core.errors import ConfigError
from policyserve.policies import registry
from policyserve.policies.objects import NoFlags
from policyserve.policies.registry import Adapter
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server

PolicyFlagsT = TypeVar("PolicyFlagsT")


@dataclass(frozen=True)
class ServeFlags(ConfigurationFlags, Generic[PolicyFlagsT]):
    """Serve a policy until a signal comes."""

    server: Annotated[ServerConfig, arg(name="")]
    policy: Annotated[PolicyFlagsT, arg(name="")]  # its panels come behind the server's: a preset has many
    debug: bool = False
    """Log every step, and tracebacks of errors that end the program."""


def main(argv: Sequence[str], *, prog: str = "policyserve serve") -> None:
    """Serve what the arguments say; exits with 1 if it cannot be served, with 2 for wrong arguments."""
    flags = ServeFlags(ServerConfig(), NoFlags())
    target, words = take_policy(argv, flags_of(ServeFlags, flags))
    configuration = read_configuration(words, target)
    policy = configuration.policy
    if policy is not None:
        serve(
            find_adapter(policy.value, policy.place), words, prog=f"{prog} {policy.value}", configuration=configuration
        )
    elif help_page.wanted(argv) is not None:
        parse(ServeFlags[NoFlags], f"{prog} POLICY", argv, flags, description=overview(str(ServeFlags.__doc__)))
    else:
        known = f"{', '.join(registry.names())} or {registry.OWN}"
        told = f"expected a policy: {known} (policyserve list)"
        complain(configuration.complaint_about_no_policy or told, ARGUMENT_ERROR)


def serve(
    adapter: Adapter[Any],
    argv: Sequence[str],
    *,
    prog: str,
    server: ServerConfig | None = None,
    configuration: Configuration | None = None,
) -> None:
    """Serve an adapter's policy until a signal comes; exits with 1 if it cannot be served, with 2 for wrong arguments.

    argv: its flags and the server's. prog: the command's name in messages. server: the settings that are not given.
    configuration: what a file and the environment set; None: it is read.
    """
    configuration = configuration or read_configuration(argv)
    flags = read_flags(adapter, lambda policy: ServeFlags(server or ServerConfig(), policy), prog, argv, configuration)
    source = find_source(adapter, flags.policy)
    try:
        served = Server(source.recipe, flags.server)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    serve_until_stopped(served, source.title, source.origin, flags.debug)
