"""`policyserve serve`: load a policy and answer until a signal comes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from tyro.conf import arg

from policyserve.cli.arguments import help_page
from policyserve.cli.arguments.configuration import Configuration, ConfigurationFlags, read_configuration
from policyserve.cli.arguments.effective import as_toml, tables_as_toml
from policyserve.cli.arguments.flags import flags_of, naming_flag
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.edge import EdgeFlags, Edges
from policyserve.cli.following import Followed, FollowFlags, followed
from policyserve.cli.foreground.log_flags import LogFlags
from policyserve.cli.foreground.seen_spec import show_seen_spec
from policyserve.cli.foreground.serving import serve_until_stopped
from policyserve.cli.new_modules import check_new_module
from policyserve.cli.policies import find_adapter, find_source, overview, read_flags, take_policy
from policyserve.cli.several import Offered, TableFlags, at_newest, check_words, offers_of, read_several, take_named
from policyserve.cli.sources import find_named
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.engine.reloading import ReloadingEngine
from policyserve.policies import registry
from policyserve.policies.objects import NoFlags
from policyserve.policies.registry import Adapter, Source
from policyserve.server.config import ServerConfig
from policyserve.server.offers import local_engine
from policyserve.server.server import Server

PolicyFlagsT = TypeVar("PolicyFlagsT")

_DEPLOYED_AS = "expected it under [policies.NAME] of a file"


@dataclass(frozen=True)
class ServeFlags(ConfigurationFlags, Generic[PolicyFlagsT]):
    """Serve a policy until a signal comes; several as NAME=POLICY NAME=POLICY, each at its path."""

    server: Annotated[ServerConfig, arg(name="")]
    policy: Annotated[PolicyFlagsT, arg(name="")]  # its panels come behind the server's: a preset has many
    write_spec: Annotated[str | None, arg(metavar="PATH")] = None
    """Write what a policy without a spec was seen to take and give, by its first answer, to this new Python file."""
    cluster: Annotated[EdgeFlags, arg(name="")] = field(default_factory=EdgeFlags)
    reload: bool = False
    """While you write it: load the policy anew, in a process of its own, when its code changes; clients reconnect."""
    following: Annotated[FollowFlags, arg(name="")] = field(default_factory=FollowFlags)
    debug: bool = False
    """Log every step, and tracebacks of errors that end the program; the same as --log-level debug."""
    log: Annotated[LogFlags, arg(name="")] = field(default_factory=LogFlags)


def main(argv: Sequence[str], *, prog: str = "policyserve serve") -> None:
    """Serve what the arguments say; exits with 1 if it cannot be served, with 2 for wrong arguments."""
    flags = ServeFlags(ServerConfig(), NoFlags())
    known = flags_of(ServeFlags, flags)
    names, words = take_named(argv, known)
    target, words = (None, words) if names else take_policy(argv, known)
    configuration = read_configuration(words, target)
    if names or configuration.tables:
        serve_several([*names, *([] if target is None else [target])], words, configuration, prog=prog)
        return
    policy = configuration.policy
    if policy is not None:
        adapter = find_adapter(policy.value, policy.place)
        serve(adapter, words, prog=f"{prog} {policy.value}", configuration=configuration)
    elif help_page.wanted(argv) is not None:
        parse(ServeFlags[NoFlags], f"{prog} POLICY", argv, flags, description=overview(str(ServeFlags.__doc__)))
    else:
        known = f"{registry.spellings()} or {registry.OWN}"
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
    given = configuration.given_or_end(flags, argv)
    source = find_source(adapter, flags.policy, given)
    try:
        wanted = flags.following
        run = _run(source, flags) if wanted.follow else None
        source = source if run is None else run.source
        served = Server(_policy_of(source, flags), flags.server)
        served.find_policy = find_named
        if run is not None:
            served.follow(run.look, run.newest, source.title, when=wanted.follow_when, every_s=wanted.follow_every_s)
        spec_file = _spec_file(flags.write_spec)
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(given.blamed(naming_flag(error, {"record": "--record"})), ARGUMENT_ERROR)
    log = replace(flags.log, log_level="debug") if flags.debug else flags.log
    show_seen_spec(served, spec_file, log.leaves_screen)
    serve_until_stopped(served, source.title, source.origin, log, given.blamed)


def _policy_of(source: Source, flags: ServeFlags[Any]) -> Any:
    """What the server is handed: how to load the policy, or the engine that has it elsewhere."""
    if flags.cluster.engine == "ray":
        if flags.reload:
            cure = f"`policyserve cluster roll {flags.cluster.deployed_as}` has replicas load its code anew"
            raise ConfigError(f"--reload: expected a policy on this machine, got --engine ray; {cure}")
        return Edges().make(source.recipe, flags.cluster, flags.server)
    return _engine(source, flags.server) if flags.reload else source.recipe


def serve_several(names: Sequence[str], words: Sequence[str], configuration: Configuration, *, prog: str) -> None:
    """Serve several policies until a signal comes; exits as serve() does.

    names: the words that name policies. words: the others. configuration: what a file and the environment set.
    """
    flags, described = ServeFlags(ServerConfig(), NoFlags()), overview(str(ServeFlags.__doc__))
    if help_page.wanted(words) is not None:
        parse(ServeFlags[NoFlags], prog, words, flags, description=described)
    check_words(words, flags_of(ServeFlags, flags))
    several = read_several(names, configuration)
    given = several.configuration.given_or_end(flags, words)
    flags = parse(ServeFlags[NoFlags], prog, words, flags, given=given)
    alone = {"reload": flags.reload, "write-spec": flags.write_spec}
    for flag in (name for name, is_given in alone.items() if is_given):
        complain(f"--{flag}: expected one policy, got {several.title}", ARGUMENT_ERROR)
    if flags.cluster.deployed_as != EdgeFlags.deployed_as:
        told = f"{_DEPLOYED_AS}, got {flags.cluster.deployed_as!r} for {several.title}"
        complain(given.blamed(f"--deployed-as: {told}"), ARGUMENT_ERROR)
    offers = offers_of(several, TableFlags(flags.server, NoFlags(), flags.cluster, flags.following))
    if flags.print_config:
        print(tables_as_toml(as_toml(flags, given, None), several.tables, several.routes), end="")
        return
    try:
        offers = at_newest(offers)
        served = Server({name: one.offer for name, one in offers.items()}, flags.server, several.routes)
        served.find_policy = find_named
        for name, one in offers.items():
            _follow(served, name, one)
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(given.blamed(naming_flag(error, {"record": "--record"})), ARGUMENT_ERROR)
    log = replace(flags.log, log_level="debug") if flags.debug else flags.log
    show_seen_spec(served, None, log.leaves_screen)
    origins = {name: f"{one.source.title}, from {one.source.origin}" for name, one in offers.items()}
    serve_until_stopped(served, several.title, configuration.file or "the command line", log, given.blamed, origins)


def _follow(served: Server, name: str, one: Offered) -> None:
    if one.run is not None:
        how = one.following
        title = one.source.title
        served.follow(one.run.look, one.run.newest, title, name, when=how.follow_when, every_s=how.follow_every_s)


def _run(source: Source, flags: ServeFlags[Any]) -> Followed:
    if flags.reload or flags.cluster.engine == "ray":
        other = "--reload as well, which watches code" if flags.reload else "--engine ray, which rolls its own versions"
        raise ConfigError(f"--follow: expected a training run, got {other}")
    return followed(source)


def _engine(source: Source, config: ServerConfig) -> ReloadingEngine:
    """An engine that loads this policy anew when its code changes; raises ConfigError where there is no such code."""
    if not source.is_own_code:
        told = f"expected a policy of your own, such as my_policy.py:policy, got {source.title}"
        raise ConfigError(f"--reload: {told}, whose code does not change")
    if os.name != "posix":
        raise ConfigError("--reload: expected Linux or macOS, where a policy can have a process of its own")
    # Python takes a file that changed twice in a second, to the same size, for the one that it has compiled.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    isolated = replace(config, isolate="process")
    return ReloadingEngine(lambda: local_engine(source.recipe, isolated))


def _spec_file(given: str | None) -> Path | None:
    try:
        return None if given is None else check_new_module(given)
    except ConfigError as error:
        raise ConfigError(f"--write-spec: {error}") from error
