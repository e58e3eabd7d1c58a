"""`python -m policyserve.client URL`: ask a server for one action, with zeros, and show how a program asks.

The key that a server wants is taken from POLICYSERVE_API_KEY.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserve.client.address import first_key, naming_variables, without_key
from policyserve.client.sync import Client
from policyserve.core.arrays import describe
from policyserve.core.errors import PolicyserveError
from policyserve.core.examples import example_of
from policyserve.core.messages import Observation, Reply
from policyserve.core.printable import one_line

_KEY = "POLICYSERVE_API_KEY"


def main(argv: Sequence[str]) -> int:
    """Ask the server at a URL, the only argument; returns 0, 1 if it does not answer, 2 for wrong arguments."""
    usage = f"usage: python -m policyserve.client URL\n\n{__doc__}"
    if not {"-h", "--help"}.isdisjoint(argv):
        print(usage)
        return 0
    if len(argv) != 1 or argv[0].startswith("-"):
        print(usage, file=sys.stderr)
        return 2
    keys = os.environ.get(_KEY)
    try:
        with Client(argv[0], api_key=first_key(keys) if keys else None) as client:
            observation = example_of(client.metadata.get("spec") or {})
            if not observation:
                print(f"{client.url} does not tell what it takes: call infer() with what your policy expects")
                return 1
            print(program(without_key(argv[0]), observation, keys or ""))
            print(answer(client.infer(observation)))
    except PolicyserveError as error:
        print(one_line(naming_variables(f"error: {error}", _KEY)), file=sys.stderr)
        return 1
    return 0


def program(url: str, observation: Observation, keys: str = "") -> str:
    """What asks for the same in Python. keys: what the variable for keys holds, which the program reads again."""
    items = [f"    {key!r}: {_written(value)}," for key, value in observation.items()]
    lines = [*(["import os", ""] if keys else []), "import numpy as np", "import policyserve", ""]
    arguments = f"{url!r}, api_key={_first_of_variable(keys)}" if keys else repr(url)
    lines += [f"client = policyserve.Client({arguments})", "reply = client.infer({", *items, "})"]
    return "\n".join(one_line(line) if line else "" for line in lines)


def answer(reply: Reply) -> str:
    """What came."""
    values = np.array2string(reply.actions, threshold=8, precision=3, edgeitems=2).replace("\n", "\n    ")
    took = ", ".join(f"{name} {value:.2f}" for name, value in reply.timing.items() if isinstance(value, float))
    kind = describe(reply.actions.dtype, reply.actions.shape)
    return f"\nreply.actions   {kind}\n    {values}\nreply.timing    {took} (ms)"


def _first_of_variable(keys: str) -> str:
    """Python for the first key of the variable, which may hold several with names."""
    variable = f"os.environ[{_KEY!r}]"
    return variable if keys == first_key(keys) else f"{variable}.partition(',')[0].rpartition(':')[2].strip()"


def _written(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"np.zeros({value.shape}, {value.dtype.name!r})"
    return repr(value)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
