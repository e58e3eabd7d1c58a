"""The `policyserve` command: one module per subcommand, each imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, keep_output_harmless
from policyserve.core.output import lost_output

_COMMANDS = {
    "serve": "serve a policy: a preset, or package.module:name",
    "new": "write a small policy of your own, to fill in",
    "eval": "run a policy in Gymnasium's environments and print its return and speed",
    "bench": "drive any policy server and print where the time of a round trip goes",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand; exits with 0, with 1 where it failed or its output was lost, with 2 for wrong arguments.

    A server's output may be lost. Of a pipe whose reader has seen enough nothing is said, as with `| head`.
    """
    keep_output_harmless()
    args = list(sys.argv[1:] if argv is None else argv)
    _run(args)
    lost = lost_output()
    if lost is not None and not isinstance(lost, BrokenPipeError) and args[:1] != ["serve"]:
        complain(f"policyserve: standard output cannot be written: {lost}", FAILURE)


def _run(args: list[str]) -> None:
    command = args[0] if args else "--help"
    if command in _COMMANDS:
        import_module(f"policyserve.cli.{command}").main(args[1:])
    elif command in ("-h", "--help"):
        print("usage: policyserve COMMAND …\n")
        for name, purpose in _COMMANDS.items():
            print(f"  {name:8} {purpose}")
        print("\npolicyserve COMMAND --help tells more; policyserve --version tells which one this is")
    elif command == "--version":
        from policyserve import __version__

        print(f"policyserve {__version__}")
    else:
        complain(f"policyserve: expected a command ({', '.join(_COMMANDS)}), got {command!r}", ARGUMENT_ERROR)
