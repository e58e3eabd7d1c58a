"""The `policyserve` command: one module per subcommand, each imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, keep_output_harmless
from policyserve.core.nearest import nearest
from policyserve.core.output import lost_output

COMMANDS = {
    "serve": "serve a policy, or several: a demo, a file, package.module:name",
    "new": "write a small policy of your own, to fill in",
    "swap": "another policy for a server at work; clients stay connected",
    "eval": "run a policy in Gymnasium's environments: its return and speed",
    "bench": "drive any policy server: where the time of a round trip goes",
    "inspect": "what a policy's file or a server is, or why it is refused",
    "doctor": "examine a server that somebody runs: what is wrong, what to do",
    "top": "watch a server at work: its live page, in the terminal",
    "record": "stand between any client and server, and record both",
    "replay": "ask what was recorded again: does a policy still do the same?",
    "view": "look at a recording in Rerun",
    "export": "write a recording's observations and actions as .npz files",
    "list": "which policies can be served, which extras are installed",
    "info": "versions, event loop and hardware, for reports of bugs",
    "cluster": "policies on many machines, by Ray: deploy, roll, scale, remove",
    "completion": "a script for bash, zsh or fish that completes all this",
}
_MODULES = {"list": "listing", "inspect": "inspecting"}  # modules of these names would hide Python's own here
_EXAMPLES = {
    "policyserve serve cartpole_ppo": "a demo to try a client with",
    "policyserve serve my_policy.py:policy --port 8001": "a policy of your own",
    "policyserve eval cartpole_ppo --episodes 100": "its return, over the wire",
    "policyserve bench ws://localhost:8000 --clients 8": "a server under load",
}


def main(argv: Sequence[str] | None = None, on_loaded: Callable[[], object] | None = None) -> None:
    """Run a subcommand; exits with 0, with 1 where it failed or its output was lost, with 2 for wrong arguments.

    on_loaded: called when the command's module is imported, before it begins.
    A server's output may be lost. Of a pipe whose reader has seen enough nothing is said, as with `| head`.
    """
    keep_output_harmless()
    args = list(sys.argv[1:] if argv is None else argv)
    _run(args, on_loaded)
    lost = lost_output()
    if lost is not None and not isinstance(lost, BrokenPipeError) and args[:1] != ["serve"]:
        complain(f"standard output cannot be written: {lost}", FAILURE)


def _run(args: list[str], on_loaded: Callable[[], object] | None) -> None:
    command = args[0] if args else "--help"
    if command == "help" and len(args) > 1:
        command, args = args[1], [args[1], "--help"]
    if command in COMMANDS:
        module = import_module(f"policyserve.cli.{_MODULES.get(command, command)}")
        if on_loaded is not None:
            on_loaded()
        module.main(args[1:])
    elif command in ("-h", "--help", "--help-all", "help"):
        print(_help())
    elif command in ("--version", "-V"):
        from policyserve import __version__

        print(f"policyserve {__version__}")
    else:
        what = "flag" if command.startswith("-") else "command"
        complain(f"unknown {what} {command}; {_meant(command)} (policyserve --help)", ARGUMENT_ERROR)


def _meant(word: str) -> str:
    """What was probably meant by a word that is no command; it may be a policy's name without one."""
    from policyserve.policies import registry

    near = nearest(word, [*COMMANDS, "--help", "--version"])
    if near is not None:
        return f"did you mean {near}?"
    if word.startswith("-"):
        return f"flags stand behind a command: {', '.join(COMMANDS)}"
    is_known = word.partition(":")[0] in registry.names()
    is_policy = is_known or word.endswith(".py") or (":" in word and "://" not in word)
    return f"did you mean serve {word}?" if is_policy else f"there are {', '.join(COMMANDS)}"


def _help() -> str:
    """What there is, in lines of at most 80 characters."""
    lines = ["usage: policyserve COMMAND …", ""]
    lines += [f"  {name:11} {purpose}" for name, purpose in COMMANDS.items()]
    lines += ["", "examples"]
    lines += [f"  {example:50} {purpose}" for example, purpose in _EXAMPLES.items()]
    more = "policyserve COMMAND --help tells more, policyserve --version which one this is"
    return "\n".join([*lines, "", more, "the manual: README.md and docs/ of the source"])
