"""`policyserve completion bash|zsh|fish`: a script that completes commands, policies, flags and their choices.

The words stand in the script, so that a press of Tab starts no Python; it is written anew after an upgrade.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policyserve.cli import COMMANDS, bench, doctor, export, inspecting, record, replay, serve, top, view
from policyserve.cli import eval as evaluate
from policyserve.cli.arguments.flags import Flag, flags_of
from policyserve.cli.arguments.help_page import wanted
from policyserve.cli.terminal import ARGUMENT_ERROR, complain
from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest
from policyserve.policies import registry
from policyserve.policies.objects import NoFlags
from policyserve.server.config import ServerConfig

_USAGE = """usage: policyserve completion bash|zsh|fish

Prints a script that completes commands, policies and flags. To install it:

  policyserve completion bash \\
    > ~/.local/share/bash-completion/completions/policyserve
  policyserve completion zsh > ~/.zfunc/_policyserve
  policyserve completion fish > ~/.config/fish/completions/policyserve.fish

zsh looks there if ~/.zshrc has `fpath+=~/.zfunc` before `compinit`."""
_HELP = ("--help", "--help-all")
# Commands that take no policy.
_OTHERS: Mapping[str, type[Any]] = {
    "doctor": doctor.DoctorFlags,
    "top": top.TopFlags,
    "record": record.RecordFlags,
    "view": view.ViewFlags,
    "export": export.ExportFlags,
}
_WITHOUT_POLICY = "|".join(("bench", *_OTHERS))


@dataclass(frozen=True)
class Words:
    """What can be typed: the policies' names, `onnx:` for a scheme, and the flags behind a command and a policy.

    flags: by both, the policy being "" before one is named.
    """

    policies: Sequence[str]
    flags: Mapping[tuple[str, str], Sequence[Flag]]

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The values of each flag that has few."""
        return {name: flag.choices for flags in self.flags.values() for flag in flags for name in flag.names}


def main(argv: Sequence[str]) -> None:
    """Print the script for a shell; exits with 2 for another shell."""
    shell = argv[0] if argv else ""
    if wanted(argv) is not None:
        print(_USAGE)
    elif shell in _SCRIPTS and len(argv) == 1:
        print(_SCRIPTS[shell](_words()))
    else:
        near = nearest(shell, _SCRIPTS)
        known = f"did you mean {near}?" if near else f"expected {', '.join(_SCRIPTS)}"
        complain(f"completion of {shell or 'no shell'}: {known} (policyserve completion --help)", ARGUMENT_ERROR)


def _words() -> Words:
    flags: dict[tuple[str, str], Sequence[Flag]] = {("bench", ""): flags_of(bench.BenchFlags)}
    server = ServerConfig()
    flags["serve", ""] = flags_of(serve.ServeFlags, serve.ServeFlags(server, NoFlags()))
    for command, kind in _OTHERS.items():
        flags[command, ""] = flags_of(kind)
    flags["eval", ""] = flags_of(evaluate.EvalServer)
    flags["inspect", ""] = flags_of(inspecting.InspectServer)
    flags["replay", ""] = flags_of(replay.ReplayServer)
    policies = []
    for name in registry.names():
        try:
            word, default = _default_of(name)
        except ConfigError:  # a package's adapter that fails
            continue
        policies.append(word)
        flags["serve", word] = flags_of(serve.ServeFlags, serve.ServeFlags(server, default))
        flags["eval", word] = flags_of(evaluate.EvalPolicy, evaluate.EvalPolicy(default))
        flags["inspect", word] = flags_of(inspecting.InspectPolicy, inspecting.InspectPolicy(default))
        flags["replay", word] = flags_of(replay.ReplayPolicy, replay.ReplayPolicy(default))
    return Words(policies, {place: [flag for flag in found if _is_offered(flag)] for place, found in flags.items()})


def _default_of(name: str) -> tuple[str, Any]:
    """How a policy is begun to be typed, and its flags where none is given; raises ConfigError."""
    try:
        return name, registry.find(name).defaults(None)
    except ConfigError:  # what stands behind its colon is missing, or it fails, and does so again
        return f"{name}:", registry.find(f"{name}:…").defaults(None)


def _is_offered(flag: Flag) -> bool:
    """Whether people type it: a training run's numbers, of which there are many, are not offered."""
    return not flag.is_word and (flag.is_usual or "." not in flag.name)


def _names(flags: Iterable[Flag]) -> str:
    return " ".join([*(name for flag in flags for name in flag.names), *_HELP])


def _posix(words: Words) -> str:
    """Functions of bash and zsh: what may follow, by the command, the policy, the word before and the one begun."""
    places = [
        f'    "{command} {policy}") echo "{_names(flags)}" ;;' for (command, policy), flags in words.flags.items()
    ]
    choices = [f'    {name}) echo "{" ".join(values)}"; return ;;' for name, values in words.choices.items() if values]
    policies = " ".join(words.policies)
    schemes = [word[:-1] for word in words.policies if word.endswith(":")]
    # bash takes a colon for the end of a word
    of_scheme = "|".join(f"{scheme}|{scheme}:*" for scheme in schemes)
    lines = [
        "_policyserve_words() {",
        '  case "$3" in',
        *choices,
        "  esac",
        '  case "$1 $2 $4" in',
        f'    "  "*) echo "{" ".join(COMMANDS)} --help --version" ;;',
        '    "completion "*) echo "bash zsh fish" ;;',
        '    *" -"*) _policyserve_flags "$1 $2" ;;',
        f'    "serve  "*|"eval  "*|"bench  "*|"inspect  "*|"replay  "*) echo "{policies}" ;;',
        "  esac",
        "}",
        "_policyserve_flags() {",
        '  case "$1" in',
        *places,
        "  esac",
        "}",
        "_policyserve_policy() {",
        '  for word in "$@"; do',
        *([f'    case "$word" in {of_scheme}) echo "${{word%%:*}}:"; return ;; esac'] if schemes else []),
        f'    case " {policies} " in *" $word "*) echo "$word"; return ;; esac',
        "  done",
        "}",
    ]
    return "\n".join(lines)


def _bash(words: Words) -> str:
    return f"""# bash completion of policyserve
{_posix(words)}
_policyserve() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="" policy=""
  if [ "$COMP_CWORD" -gt 1 ]; then
    command="${{COMP_WORDS[1]}}"
    policy="$(_policyserve_policy "${{COMP_WORDS[@]:2:COMP_CWORD-2}}")"
    case "$command" in {_WITHOUT_POLICY}) policy="" ;; esac
  fi
  COMPREPLY=($(compgen -W "$(_policyserve_words "$command" "$policy" "$before" "$current")" -- "$current"))
}}
complete -o default -F _policyserve policyserve"""


def _zsh(words: Words) -> str:
    return f"""#compdef policyserve
{_posix(words)}
_policyserve() {{
  local before="${{words[CURRENT-1]}}" command="" policy=""
  if (( CURRENT > 2 )); then
    command="${{words[2]}}"
    policy="$(_policyserve_policy "${{(@)words[3,CURRENT-1]}}")"
    case "$command" in {_WITHOUT_POLICY}) policy="" ;; esac
  fi
  local -a shown=(${{=$(_policyserve_words "$command" "$policy" "$before" "${{words[CURRENT]}}")}})
  compadd -a shown
  _files
}}
if [ "$funcstack[1]" = _policyserve ]; then _policyserve "$@"; else compdef _policyserve policyserve; fi"""


def _fish(words: Words) -> str:
    start, policies = "complete -c policyserve", " ".join(words.policies)
    lines = ["# fish completion of policyserve", f"{start} -n __fish_use_subcommand -l help -l version"]
    lines += [
        f"{start} -n __fish_use_subcommand -f -a {name} -d {_quoted(purpose)}" for name, purpose in COMMANDS.items()
    ]
    lines.append(f"{start} -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'")
    for command in ("serve", "eval", "bench", "inspect", "replay", *_OTHERS):
        none_yet = f"__fish_seen_subcommand_from {command}; and not __fish_seen_subcommand_from {policies}"
        if command not in _OTHERS:
            lines.append(f"{start} -n '{none_yet}' -a '{policies}'")
        of_policies: dict[str, tuple[Flag, list[str]]] = {}
        for (one, policy), flags in words.flags.items():
            for flag in flags if one == command else ():
                of_policies.setdefault(flag.name, (flag, []))[1].append(policy)
        for flag, names in of_policies.values():
            named = "" if "" in names else f"; and __fish_seen_subcommand_from {' '.join(names)}"
            values = "" if flag.is_switch else f" -x -a '{' '.join(flag.choices)}'" if flag.choices else " -r"
            where = f"-n '__fish_seen_subcommand_from {command}{named}'"
            lines += [f"{start} {where} -l {name[2:]}{values} -d {_quoted(flag.help)}" for name in flag.names]
        lines += [f"{start} -n '__fish_seen_subcommand_from {command}' -l {name[2:]}" for name in _HELP]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """A text as one word of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
