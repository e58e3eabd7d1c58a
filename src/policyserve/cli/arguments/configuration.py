"""What a configuration file and the environment set of a command's flags.

A typed flag goes before a variable, a variable before the file, the file before the default. A key of a file is a
flag's name without its dashes, a variable is POLICYSERVE_ and that name in capitals. Their values become words of the
command line, so that a value is read, checked and refused as the flag's own would be; a complaint then names the line
or the variable instead of the flag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any

from tyro.conf import arg

from policyserve.cli.arguments import help_page
from policyserve.cli.arguments.flags import Flag, flags_of
from policyserve.cli.arguments.setting import TYPED, Setting, as_listed, beside, words_of
from policyserve.cli.arguments.tables import A_NAME, is_of_tables, policy_of_file
from policyserve.cli.keys import complaint_about_a_key
from policyserve.cli.terminal import ARGUMENT_ERROR, complain
from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest
from policyserve.server.keys import VARIABLE as KEYS

PREFIX = "POLICYSERVE_"
_ON_THE_COMMAND_LINE = ("config", "print-config")
_SEVERAL = "policies by name stand on the command line of `policyserve serve` or in a file, docs/several_policies.md"
_KUBERNETES = "set by Kubernetes for a service called policyserve: give its pods enableServiceLinks: false"


@dataclass(frozen=True, kw_only=True)
class ConfigurationFlags:
    """The flags of a command that a configuration can be given to."""

    config: Annotated[str | None, arg(metavar="FILE")] = None
    """Take what is not given here from this file, TOML, YAML or JSON; docs/configuration.md has an example."""
    print_config: bool = False
    """Print the whole configuration, with where each value is from, as TOML that --config takes, and end."""


@dataclass(frozen=True)
class Given:
    """What a configuration gives to one command: words behind those that were typed, and where each value is from."""

    words: tuple[str, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def source(self, name: str) -> str | None:
        """Where a flag's value is from; None: it is the default."""
        return self.settings[name].source if name in self.settings else None

    def blamed(self, message: str) -> str:
        """A complaint about a flag, with the place where its value stands instead of the flag."""
        for name, setting in self.settings.items():
            if setting.source == TYPED:
                continue
            leaf = re.escape(name.rpartition(".")[2].replace("-", "_"))
            about = rf"(?:error parsing )?--{re.escape(name)}: |(?:error parsing \S+: )?{leaf}: "
            if found := re.match(about, message):
                return f"{setting.place}: {message[found.end() :]}"
            if re.match(rf"--{re.escape(name)}(?![\w.-])", message) or f"argument '--{name}'" in message:
                return f"{setting.place}: {message}"
        return message


@dataclass(frozen=True)
class Configuration:
    """A file's settings and the environment's variables, before it is known which flags there are.

    policy: the one to serve, whoever names it. file: its path as it was given; None: there is none. tables: what stands
    under `policies` and `routes`, of a server that has several.
    """

    policy: Setting | None = None
    settings: tuple[Setting, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None
    tables: tuple[Setting, ...] = ()

    @property
    def complaint_about_no_policy(self) -> str | None:
        """What to say where a file names no policy, and nothing else does; None where there is no file."""
        if self.file is None:
            return None
        for setting in self.settings:
            if nearest(setting.name, ["policy"], 0.7):
                return f"{setting.source}: unknown key {setting.name}; did you mean policy?"
        return f'{self.file}: expected a policy in it or on the command line, as in policy = "cartpole_ppo", got none'

    def has(self, name: str) -> bool:
        """Whether a file or a variable sets this flag."""
        return variable_of(name) in self.variables or any(setting.name == name for setting in self.settings)

    def given(self, command: Any, argv: Sequence[str]) -> Given:
        """What it gives to a command, whose flags `command` has, beside what was typed. Raises ConfigError."""
        if self.tables:
            raise ConfigError(f"{self.tables[0].place}: {_SEVERAL}: this command takes one policy")
        flags = {key: flag for key, flag in keys_of(command).items() if key not in _ON_THE_COMMAND_LINE}
        chosen = {setting.name: setting for setting in (*self._of_file(flags), *self._of_variables(flags))}
        chosen |= {name: Setting(name, None, TYPED, flags[name].name) for name in _typed(argv, flags)}
        words = [word for name, one in chosen.items() if one.source != TYPED for word in words_of(flags[name], one)]
        return Given(tuple(words), chosen)

    def given_or_end(self, command: Any, argv: Sequence[str]) -> Given:
        """The same; exits with 2 and one line for what is wrong with it. Help is given whatever is wrong."""
        if help_page.wanted(argv) is not None:
            return Given()
        try:
            return self.given(command, argv)
        except ConfigError as error:
            complain(str(error), ARGUMENT_ERROR)

    def _of_file(self, flags: Mapping[str, Flag]) -> Iterator[Setting]:
        for setting in self.settings:
            if setting.name in flags:
                yield replace(setting, value=beside(folder_of(self.file), flags[setting.name], setting.value))
            elif setting.value != {} or not any(name.startswith(f"{setting.name}.") for name in flags):
                raise ConfigError(_unknown_key(setting, flags))

    def _of_variables(self, flags: Mapping[str, Flag]) -> Iterator[Setting]:
        names = {variable_of(name): name for name in flags}
        for variable, text in self.variables.items():
            if text.startswith("tcp://") or variable.startswith(f"{PREFIX}SERVICE_"):
                raise ConfigError(f"{variable}: {_KUBERNETES}")
            if variable not in names:
                raise ConfigError(_unknown_variable(variable, names))
            name = names[variable]
            if not text.strip():
                raise ConfigError(f"{variable}: expected a value, got nothing; unset it to leave {name} as it is")
            yield Setting(name, as_listed(flags[name], text, variable), variable, variable)


def read_configuration(
    argv: Sequence[str],
    policy: str | None = None,
    *,
    has_policy: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Configuration:
    """Read what --config and the environment say; exits with 2 and one line for what is wrong with it.

    policy: the one that was typed. has_policy: whether the command takes one. environment: os.environ if None.
    """
    found = os.environ if environment is None else environment
    variables = {name: text for name, text in found.items() if name.startswith(PREFIX) and name != KEYS}
    typed = None if policy is None else Setting("policy", policy, TYPED, "")
    try:
        return _read(argv, variables, typed, has_policy)
    except ConfigError as error:
        if help_page.wanted(argv) is not None:
            return Configuration(policy=typed)  # help is given whatever is wrong with the rest
        complain(str(error), ARGUMENT_ERROR)


def keys_of(command: Any) -> dict[str, Flag]:
    """A command's flags by their names without dashes. command: an instance, or the class where something is needed."""
    is_class = isinstance(command, type)
    found = flags_of(command if is_class else type(command), None if is_class else command)
    return {flag.name.removeprefix("--").lower(): flag for flag in found}


def variable_of(name: str) -> str:
    """The environment variable of a flag: POLICYSERVE_MODEL_CONFIG_DEVICE for model-config.device."""
    return PREFIX + re.sub(r"[-.]", "_", name).upper()


def _read(argv: Sequence[str], variables: dict[str, str], policy: Setting | None, has_policy: bool) -> Configuration:
    by_variable = _taken(variables, variable_of("config"))
    path = os.path.expanduser(_typed_file(argv) or by_variable or "") or None
    try:
        settings = () if path is None else tuple(_settings_of(path))
    except ConfigError as error:
        if by_variable is None or _typed_file(argv):
            raise
        raise ConfigError(f"{variable_of('config')}: {error}") from error
    if has_policy:
        by_variable = _taken(variables, variable_of("policy"))
        in_file = next((setting for setting in settings if setting.name == "policy"), None)
        settings = tuple(setting for setting in settings if setting is not in_file)
        if policy is None and by_variable is not None:
            policy = Setting("policy", by_variable, variable_of("policy"), variable_of("policy"))
        policy = policy or (policy_of_file(in_file, folder_of(path)) if in_file else None)
    tables = tuple(setting for setting in settings if is_of_tables(setting.name))
    return Configuration(policy, tuple(one for one in settings if one not in tables), variables, path, tables)


def _typed_file(argv: Sequence[str]) -> str | None:
    """The file that --config names; raises ConfigError where it stands twice, or names nothing."""
    found: list[str] = []
    for word, after in pairwise((*argv, "--")):
        flag, equals, rest = word.partition("=")
        if flag == "--config":
            found.append(rest if equals else "" if after.startswith("--") else after)
    if len(found) > 1:
        raise ConfigError(f"--config: expected one file, got {' and '.join(found)}: put all into one")
    if found and not found[0].strip():
        raise ConfigError("--config: expected a file, got nothing; is the variable set that it comes from?")
    return found[0] if found else None


def _typed(argv: Sequence[str], flags: Mapping[str, Flag]) -> list[str]:
    """The keys of what stands on a command line. A word without a flag stands first on one, if it does."""
    spelt = {word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("-")}
    has_word = bool(argv) and not argv[0].startswith("-")
    return [key for key, flag in flags.items() if (has_word if flag.is_word else not spelt.isdisjoint(flag.names))]


def _taken(variables: dict[str, str], name: str) -> str | None:
    """A variable's value, which is taken out of the others; raises ConfigError for an empty one."""
    text = variables.pop(name, None)
    if text is not None and not text.strip():
        raise ConfigError(f"{name}: expected a value, got nothing; unset it where none is meant")
    return text


def _settings_of(path: str) -> Iterator[Setting]:
    """The settings of a file. Raises ConfigError, also for keys that no command has and for one that stands twice."""
    from policyserve.cli.arguments.config_file import read_entries  # the parsers are imported where there is a file

    seen: dict[str, str] = {}
    for entry in read_entries(path):
        whole = entry.name.removeprefix("server.")  # that table may stand around the server's own keys
        name = whole if is_of_tables(whole) else whole.replace("_", "-")
        first, _, rest = name.partition(".")
        if name == "server" and entry.value == {}:
            continue
        if first == "policy" and (rest or isinstance(entry.value, dict)):
            raise ConfigError(f"{entry.place}: policy: expected {A_NAME}, got a table; its flags stand beside it")
        if name in seen:
            raise ConfigError(f"{entry.place}: {entry.name} stands there again, as {seen[name]}: keep one")
        seen[name] = entry.name
        yield Setting(name, entry.value, entry.place, f"{entry.place}: {entry.name}")


def folder_of(path: str | None) -> str:
    """What paths in a file are relative to; empty: the working directory."""
    from policyserve.cli.arguments.config_file import is_stream

    return "" if path is None or is_stream(path) else os.path.dirname(path)


def _unknown_key(setting: Setting, flags: Mapping[str, Flag]) -> str:
    _, _, written = setting.place.rpartition(": ")
    if setting.name in _ON_THE_COMMAND_LINE:
        why = ": a file names no other" if setting.name == "config" else ""
        return f"{setting.place}: stands on the command line only, not in a file{why}"
    if complaint_about_a_key([f"--{setting.name.replace('-', '_')}"]):
        return (
            f"{setting.place}: a key itself stands in no file like this: name its file in api-key-file, or set {KEYS}"
        )
    near = _nearest(setting.name, flags)
    moved = near is not None and "." in setting.name and "." not in near
    where = ", which stands above the first [table]" if moved else ""
    hint = f"did you mean {near}{where}?" if near else "keys are flags without their dashes, as --help lists them"
    return f"{setting.source}: unknown key {written}; {hint}"


def _unknown_variable(variable: str, names: Mapping[str, str]) -> str:
    if variable.startswith(variable_of("policies")):
        return f"{variable}: {_SEVERAL}"
    if variable == variable_of("print-config"):
        return f"{variable}: --print-config stands on the command line only"
    if complaint_about_a_key([f"--{variable.removeprefix(PREFIX).lower()}"]):
        return f"unknown variable {variable}; the variable for keys is {KEYS}"
    known = {name.removeprefix(PREFIX): name for name in (*names, KEYS)}
    near = nearest(variable.removeprefix(PREFIX), known)
    hint = f"did you mean {known[near]}?" if near else f"what begins with {PREFIX} stands for a flag: unset it"
    return f"unknown variable {variable}; {hint}"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was meant: with the same last part, or spelt nearly the same."""
    leaf = name.rpartition(".")[2]
    leaves = {one.rpartition(".")[2]: one for one in reversed(list(known))}  # of the same last parts, the first name
    if leaf in leaves:
        return leaves[leaf]
    whole = nearest(name, leaves.values())
    if whole is not None and _ends_alike(name, whole):
        return whole
    near = nearest(leaf, leaves)
    return None if near is None else leaves[near]


def _ends_alike(name: str, other: str) -> bool:
    """Whether their last parts are spelt nearly the same, if they are of one table: it makes any two names alike."""
    (table, _, leaf), (its_table, _, its_leaf) = name.rpartition("."), other.rpartition(".")
    return table != its_table or nearest(leaf, [its_leaf]) is not None
