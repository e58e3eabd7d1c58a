"""The policy that a command line is about, by the registry; what is wrong with it ends the command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import Any, Protocol, TypeVar, cast

from policyserve.cli.arguments import help_page, mistakes
from policyserve.cli.arguments.configuration import Configuration, Given
from policyserve.cli.arguments.effective import end_if_printed
from policyserve.cli.arguments.flags import Flag
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies import registry
from policyserve.policies.registry import Adapter, Source


class CommandFlags(Protocol):
    """A command's flags, its policy's among them: a dataclass that is generic in the type of those."""

    @property
    def policy(self) -> Any: ...


_BY_FLAGS = Given()
_SETTINGS = (".toml", ".yaml", ".yml", ".json")

FlagsT = TypeVar("FlagsT", bound=CommandFlags)


def take_policy(argv: Sequence[str], flags: Sequence[Flag]) -> tuple[str | None, list[str]]:
    """The word that names a policy, which may stand behind flags, and the other words; None if there is none.

    flags: those of the command. Any other flag may be one of the policy: it takes the word behind it.
    """
    words = list(argv)
    found = words[0] if words and not mistakes.is_flag(words[0]) else _behind_flags(words, flags)
    if found is not None:
        words.remove(found)
    return found, words


def _behind_flags(argv: Sequence[str], flags: Sequence[Flag]) -> str | None:
    names = registry.names()
    for one in mistakes.take_apart(argv, flags)[1]:
        values = 1 if one.flag is None and "=" not in one.word else len(one.taken)
        is_sure = one.flag is not None and not one.flag.takes_many
        named = [word for word in one.behind[:values] if word in names and not is_sure]
        loose = [*named, *one.behind[values:]]
        if loose:
            return loose[0]
    return None


def find_adapter(target: str, place: str = "") -> Adapter[Any]:
    """The adapter for what the user typed; exits with 2 and one line if there is none.

    place: what messages call the name's place where it was not typed, such as `serve.toml: line 1: policy`.
    """
    try:
        return registry.find(target)
    except ConfigError as error:
        if not place and target.endswith(_SETTINGS):
            complain(f"expected a policy, got {target}: a file of settings stands behind --config", ARGUMENT_ERROR)
        complain(f"{place}: {error}" if place else str(error), ARGUMENT_ERROR)


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
    if help_page.wanted(argv) is not None:
        # Help is given whatever is wrong with the rest.
        with suppress(SystemExit, ConfigError), redirect_stderr(StringIO()):
            default = adapter.defaults(read(help_page.without_help(argv), default).policy)
        return read(argv, default)
    given = read(argv, default)
    try:
        better = adapter.defaults(given.policy)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    flags = given if better == default else read(argv, better)
    end_if_printed(flags, given_to(better), configuration.policy)
    return flags


def find_source(adapter: Adapter[Any], flags: Any, given: Given = _BY_FLAGS) -> Source:
    """Where the policy comes from; exits with 2 for flags that do not go together.

    Exits with 1 if a package is missing, or the files cannot be served. given: where each flag's value is from.
    """
    try:
        source = adapter.source(flags)
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(given.blamed(str(error)), ARGUMENT_ERROR)
    try:
        if source.check is not None:
            source.check()
    except ConfigError as error:
        complain(str(error), FAILURE)
    return source


def overview(doc: str) -> str:
    """What `--help` says of a command before it knows the policy: what it does, and which policies there are."""
    *names, own = registry.listing()
    told = f"POLICY is {', '.join(names)}, {own}, or the file or folder of a model alone, whose scheme is found out"
    return f"{doc}\n\n{told} (policyserve list says what each is). A scheme hides a module of its name"
