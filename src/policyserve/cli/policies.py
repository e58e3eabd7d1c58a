"""The policy that a command line is about, by the registry; what is wrong with it ends the command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import Any, Protocol, TypeVar, cast

from policyserve.cli.configuration import Configuration, Given
from policyserve.cli.effective import end_if_printed
from policyserve.cli.parsing import parse
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies import registry
from policyserve.policies.registry import Adapter, Source

_HELP = ("-h", "--help")


class CommandFlags(Protocol):
    """A command's flags, its policy's among them: a dataclass that is generic in the type of those."""

    @property
    def policy(self) -> Any: ...


FlagsT = TypeVar("FlagsT", bound=CommandFlags)


def find_adapter(target: str, prog: str) -> Adapter[Any]:
    """The adapter for what the user typed; exits with 2 and one line if there is none."""
    try:
        return registry.find(target)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR)


def read_flags(
    adapter: Adapter[Any],
    start: Callable[[Any], FlagsT],
    prog: str,
    argv: Sequence[str],
    configuration: Configuration | None = None,
) -> FlagsT:
    """Read a command line; exits with 2 and one line for a wrong one, with 0 after --help.

    start: makes the command's flags that are not given, out of the policy's that are not given.
    configuration: what a file and the environment set; with --print-config the flags are printed, and the command ends.
    """
    configuration = configuration or Configuration()

    def given_to(default: Any) -> Given:
        return configuration.given_or_end(start(default), argv)

    def read(words: Sequence[str], default: Any) -> FlagsT:
        flags = start(default)
        kind = cast(Any, type(flags))[adapter.flags]
        help_text = f"{type(flags).__doc__}\n\n{adapter.help}."
        return parse(kind, prog, words, flags, description=help_text, given=given_to(default))

    default = adapter.defaults(None)
    other_words = [word for word in argv if word not in _HELP]
    if len(other_words) < len(argv):
        # Help is given whatever is wrong with the rest.
        with suppress(SystemExit, ConfigError), redirect_stderr(StringIO()):
            default = adapter.defaults(read(other_words, default).policy)
        return read(argv, default)
    given = read(argv, default)
    try:
        better = adapter.defaults(given.policy)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR)
    flags = given if better == default else read(argv, better)
    end_if_printed(flags, given_to(better), configuration.policy)
    return flags


def find_source(adapter: Adapter[Any], flags: Any, prog: str) -> Source:
    """Where the policy comes from; exits with 2 for flags that do not go together, with 1 if a package is missing."""
    try:
        return adapter.source(flags)
    except MissingDependency as error:
        complain(f"{prog}: {error}", FAILURE)
    except ConfigError as error:
        complain(f"{prog}: {error}", ARGUMENT_ERROR)
