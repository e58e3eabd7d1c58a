"""What clients call the inputs of a policy whose file has names of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policyserve.core.errors import ConfigError, names_told
from policyserve.core.nearest import nearest

ALONE = "obs"  # what the only array is called, which is also what a client sends that sends nothing but an array


@dataclass(frozen=True)
class Names:
    """What clients call each input. client: by the file's own name. aliases: what they may call it besides, for a spec.

    A key of an adapter's spec is `names.client[own]`, and so is the key in the observations that it gets.
    """

    client: Mapping[str, str]
    aliases: Mapping[str, str]


def read_renames(text: str | None) -> Mapping[str, str]:
    """What stands behind --rename, `client=policy` by commas, as client -> policy; raises ConfigError."""
    renames: dict[str, str] = {}
    for pair in [] if text is None else text.split(","):
        client, equals, own = (part.strip() for part in pair.partition("="))
        if not (client and equals and own):
            raise ConfigError(f"rename: expected client=policy, by commas, got {pair.strip() or 'nothing'!r}")
        if client in renames:
            raise ConfigError(f"rename: {client!r} is there twice")
        renames[client] = own
    return renames


def client_names(
    arrays: Sequence[str],
    renames: Mapping[str, str],
    *,
    others: Sequence[str] = (),
    also: Mapping[str, str] | None = None,
) -> Names:
    """What clients call the inputs that a file calls so.

    arrays: what every observation must have. others: texts, and what may be left out. A single array is called `obs`;
    the rest keeps its name but for `renames`, client -> own; the file's own names are aliases. also: further aliases,
    alias -> own. Raises ConfigError for a name that the file does not have, or two inputs of one name.
    """
    own = [*arrays, *others]
    for name in renames.values():
        if name not in own:
            near = nearest(name, own)
            hint = f" (did you mean {near}?)" if near else ""
            raise ConfigError(f"--rename: expected one of the policy's inputs, {names_told(own)}, got {name!r}{hint}")
    client = {name: name for name in own}
    if len(arrays) == 1 and ALONE not in own:
        client[arrays[0]] = ALONE
    client.update({name: wanted for wanted, name in renames.items()})
    twice = [name for name, count in Counter(client.values()).items() if count > 1]
    if twice:
        raise ConfigError(f"--rename: two of the policy's inputs are called {twice[0]!r}: rename the other one, too")
    aliases = {**(also or {}), **{name: name for name in own}, **({ALONE: arrays[0]} if len(arrays) == 1 else {})}
    taken = set(client.values())
    return Names(client, {alias: client[name] for alias, name in aliases.items() if alias not in taken})
