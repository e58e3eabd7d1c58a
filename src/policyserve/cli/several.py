"""Several policies of one `policyserve serve`: which the words and a file name, and with which flags each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Generic, TypeVar

from tyro.conf import arg

from policyserve.cli.arguments import mistakes
from policyserve.cli.arguments.configuration import Configuration, Given, folder_of, keys_of
from policyserve.cli.arguments.flags import Flag
from policyserve.cli.arguments.setting import TYPED
from policyserve.cli.arguments.tables import PolicyTable, is_named, named, policies_in, policy_of_file, routes_in
from policyserve.cli.edge import OF_THE_SERVER, EdgeFlags, Edges, check_deployed_apart
from policyserve.cli.following import Followed, FollowFlags, begun, look_of
from policyserve.cli.policies import find_adapter, read_flags
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.policies import registry
from policyserve.policies.objects import NoFlags
from policyserve.policies.registry import Source
from policyserve.server.config import ServerConfig
from policyserve.server.offers import OWN_SETTINGS, Offer
from policyserve.server.splits import Split

PolicyFlagsT = TypeVar("PolicyFlagsT")

_MOST_SESSIONS = "max_sessions"
_OF_ONE = (*OWN_SETTINGS, _MOST_SESSIONS)
_ELSEWHERE = "one policy's own flags stand in a file, under [policies.NAME] (docs/several_policies.md)"


@dataclass(frozen=True)
class TableFlags(Generic[PolicyFlagsT]):
    """What a table of one policy may hold: its own flags, and what it has otherwise than the server."""

    server: Annotated[ServerConfig, arg(name="")]
    policy: Annotated[PolicyFlagsT, arg(name="")]
    cluster: Annotated[EdgeFlags, arg(name="")] = field(default_factory=EdgeFlags)
    following: Annotated[FollowFlags, arg(name="")] = field(default_factory=FollowFlags)
    keys: tuple[str, ...] = ()
    """The names of the API keys that may use it; none: all."""


@dataclass(frozen=True)
class Several:
    """What a command line and a file say of several policies. tables: of each, in their order."""

    tables: Sequence[PolicyTable]
    routes: Mapping[str, Split]
    configuration: Configuration  # of the server

    @property
    def title(self) -> str:
        """What is served, for people."""
        count = len(self.tables)
        return f"{count} polic{'y' if count == 1 else 'ies'}: {', '.join(table.name for table in self.tables)}"


def take_named(argv: Sequence[str], flags: Sequence[Flag]) -> tuple[list[str], list[str]]:
    """The words that name several policies, and the others; none where at most one is named, without a name of its own.

    flags: those of the command. A word behind a flag that is none of these may be its value.
    """
    argv_end = list(argv).index("--") if "--" in argv else len(argv)
    first_flag = next((at for at, word in enumerate(argv) if mistakes.is_flag(word)), argv_end)
    loose = list(argv[: min(first_flag, argv_end)])
    for one in mistakes.take_apart(argv, flags)[1]:
        if one.flag is not None:
            loose += one.behind[len(one.taken) :]
    spelt = {name for flag in flags for name in flag.names}
    has_name = any(is_named(word) and f"--{word.partition('=')[0]}" not in spelt for word in loose)
    if not has_name and sum(word.partition(":")[0] in registry.names() for word in loose) < 2:
        return [], list(argv)
    words = list(argv)
    for word in loose:
        words.remove(word)
    return loose, words


def read_several(words: Sequence[str], configuration: Configuration) -> Several:
    """All policies, those of the file first; exits with 2 and one line for what is wrong with them.

    words: as they are typed. configuration: what a file and the environment set.
    """
    try:
        tables, routes = _tables(words, configuration)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    if not tables:
        complain(f"{configuration.tables[0].place}: expected [policies.NAME] beside it, with a source", ARGUMENT_ERROR)
    return Several(tables, routes, replace(configuration, policy=None, tables=()))


def _tables(words: Sequence[str], configuration: Configuration) -> tuple[list[PolicyTable], Mapping[str, Split]]:
    """The policies and the routes; raises ConfigError."""
    in_file = policies_in(configuration.tables)
    single = configuration.policy
    if single is not None and single.source != TYPED:
        told = "stands beside tables or words that name several: give it a name there, too"
        raise ConfigError(f"{single.place}: {told}")
    folder = folder_of(configuration.file)
    tables = [replace(one, source=policy_of_file(one.source, folder)) for one in in_file]
    return [*tables, *named(words, {table.name: table for table in in_file})], routes_in(configuration.tables)


def check_words(words: Sequence[str], flags: Sequence[Flag]) -> None:
    """Exit with 2 and one line for a flag that is no server's: it would be one policy's, and nobody knows whose."""
    strange = [typed.word for typed in mistakes.take_apart(words, flags)[1] if typed.flag is None]
    if strange and (told := mistakes.unknown(words, flags)):
        complain(f"{told}; {_ELSEWHERE}", ARGUMENT_ERROR)


@dataclass(frozen=True)
class Offered:
    """One of several policies, from its source. run: the training run that is followed; None: none is."""

    offer: Offer
    source: Source
    cluster: EdgeFlags
    following: FollowFlags
    run: Followed | None


def offers_of(several: Several, usual: TableFlags[NoFlags]) -> dict[str, Offered]:
    """What a server is to serve, by its name; exits with 2 and one line for what is wrong with it.

    Whether the policies' files are good is known when they are loaded: others are served meanwhile.
    usual: the settings of those whose tables say nothing.
    """
    edges = Edges()
    offered: dict[str, Offered] = {}
    for table in several.tables:
        flags = replace(usual, cluster=replace(usual.cluster, deployed_as=table.name))
        offered[table.name] = _offer_of(table, flags, several.configuration.file, edges)
    try:
        check_deployed_apart({name: one.cluster for name, one in offered.items()})
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    if usual.following.follow and not any(one.run for one in offered.values()):
        told = f"--follow: expected a training run on this machine among them, got {several.title}"
        complain(told, ARGUMENT_ERROR)
    return offered


def at_newest(offered: Mapping[str, Offered]) -> dict[str, Offered]:
    """The same, each run at its newest checkpoint; where there is nothing else to serve, the first one is waited for.

    Raises ConfigError for a run that is gone, if it is waited for.
    """
    runs = [one.run for one in offered.values() if one.run is not None]
    found = iter(begun(runs) if len(runs) == len(offered) else [run.at_newest() for run in runs])
    return {name: one if one.run is None else _followed(one, next(found)) for name, one in offered.items()}


def _followed(one: Offered, run: Followed) -> Offered:
    return replace(one, run=run, source=run.source, offer=replace(one.offer, policy=run.source.recipe))


def _offer_of(table: PolicyTable, usual: TableFlags[NoFlags], file: str | None, edges: Edges) -> Offered:
    """What is to be served by this name. usual: what no table has to say."""
    adapter = find_adapter(table.source.value, table.source.place or table.name)
    own = Configuration(table.source, table.settings, file=file)
    prog = f"policies.{table.name}"
    flags = read_flags(adapter, lambda policy: replace(usual, policy=policy), prog, (), own)
    given = own.given_or_end(flags, ())
    where = f"{table.source.source}: {prog}" if table.source.source != TYPED else table.name
    try:
        source = adapter.source(flags.policy)
        is_here = flags.cluster.engine == "local"
        policy = source.recipe if is_here else edges.make(source.recipe, flags.cluster, flags.server)
        run = _run_of(source, flags, is_told="follow" in given.settings)
    except MissingDependency as error:
        complain(f"{where}: {error}", FAILURE)
    except ConfigError as error:
        told = str(error)
        complain(given.blamed(told) if given.blamed(told) != told else f"{where}: {told}", ARGUMENT_ERROR)
    settings = _own_settings(flags, given)
    most = settings.pop(_MOST_SESSIONS, None)
    offer = Offer(policy, settings, flags.keys or None, most, source.title)
    return Offered(offer, source, flags.cluster, flags.following, run)


def _run_of(source: Source, flags: TableFlags[Any], *, is_told: bool) -> Followed | None:
    """The training run of a policy, if that is followed. is_told: its own table says so; else it is where it is a run.

    Raises ConfigError for what its own table cannot have followed.
    """
    if not flags.following.follow:
        return None
    if is_told and flags.cluster.engine == "ray":
        raise ConfigError("--follow: expected a training run on this machine, got --engine ray, which rolls versions")
    if flags.cluster.engine == "ray" or (source.newest is None and not is_told):
        return None
    look = look_of(source)
    try:
        return Followed(source, look(), look)
    except ConfigError:  # loading tells it, and others are served
        return Followed(source, None, look)


def _own_settings(flags: TableFlags[Any], given: Given) -> dict[str, Any]:
    """Those of the server that a table gives to its policy."""
    known = keys_of(flags)
    found: dict[str, Any] = {}
    for name, setting in given.settings.items():
        path = known[name].path
        if _holds_for_all(path):
            complain(
                f"{setting.place}: holds for the whole server: put it above the tables, or under [server]",
                ARGUMENT_ERROR,
            )
        if path[0] == "server":
            found[path[1]] = getattr(flags.server, path[1])
    return found


def _holds_for_all(path: Sequence[str]) -> bool:
    """Whether a setting, by where it is in TableFlags, cannot be one policy's."""
    kind, name = path[0], path[-1]
    return (kind == "server" and name not in _OF_ONE) or (kind == "cluster" and name in OF_THE_SERVER)
