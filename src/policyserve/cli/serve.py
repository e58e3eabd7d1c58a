"""`policyserve serve`: load a policy and answer until a signal comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from tyro.conf import arg

from policyserve.cli.configuration import Configuration, ConfigurationFlags, asks_for_help, read_configuration
from policyserve.cli.policies import find_adapter, find_source, read_flags
from policyserve.cli.serving import serve_until_stopped
from policyserve.cli.terminal import ARGUMENT_ERROR, complain
from policyserve.core.errors import ConfigError
from policyserve.policies import registry
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
    target = argv[0] if argv else ""
    if target in ("-h", "--help"):
        print(f"usage: {prog} POLICY [flags]\n\nPOLICY is one of")
        for name, purpose in registry.listing().items():
            print(f"  {name:22} {purpose}")
        print(f"\n{prog} POLICY --help lists its flags")
    elif not target or target.startswith("-"):
        configuration = read_configuration(argv)
        if configuration.policy is None and asks_for_help(argv):
            main(["--help"], prog=prog)
            raise SystemExit(0)
        if configuration.policy is None:
            known = f"{', '.join(registry.names())} or {registry.OWN}"
            told = f"{prog}: expected a policy first ({known}), got {target or 'none'!r}"
            complain(configuration.complaint_about_no_policy or told, ARGUMENT_ERROR)
        name = configuration.policy.value
        adapter = find_adapter(name, configuration.policy.place)
        serve(adapter, argv, prog=f"{prog} {name}", configuration=configuration)
    else:
        configuration = read_configuration(argv[1:], target)
        serve(find_adapter(target, prog), argv[1:], prog=f"{prog} {target}", configuration=configuration)


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
    source = find_source(adapter, flags.policy, prog)
    try:
        served = Server(source.recipe, flags.server)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR)
    serve_until_stopped(served, source.title, source.origin, flags.debug)
