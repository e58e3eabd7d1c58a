"""API keys of the commands that ask a server: where they come from, and what keeps them out of sight."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from policyserve.client.address import has_key
from policyserve.server.keys import VARIABLE

_URL_WITH_KEY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)?[^\s'\"@]*:[^\s'\"]*[@\ufe6b\uff20]")
_KEY_FLAG = re.compile(r"--?(api[-_]?)?(key|token|password|secret)\b")


def key_from_environment() -> str | None:
    """The first key of POLICYSERVE_API_KEY, of those that a server would read there; None if it is not set.

    The variable holds `name:key,name2:key2`, or one key.
    """
    keys = os.environ.get(VARIABLE)
    return keys.partition(",")[0].rpartition(":")[2].strip() if keys else None


def warn_of_keys(prog: str, *urls: str | None) -> None:
    """Say on stderr, once, that a URL's password is in the list of processes."""
    if any(has_key(url) for url in urls if url is not None):
        told = f"everybody on this machine can read the key in a URL (ps shows it): {VARIABLE} is a place for it"
        print(f"{prog}: {told}", file=sys.stderr)


def without_keys(message: str) -> str:
    """A message without what stands before the @ of the URLs in it, also where they have no scheme."""
    return _URL_WITH_KEY.sub(r"\1…@", message)


def naming_variable(message: str) -> str:
    """A client's error in the words of a command: where it names Python's argument for a key, the variable."""
    return message.replace("(api_key=…)", f"(set {VARIABLE})")


def complaint_about_a_key(argv: Sequence[str]) -> str | None:
    """What to say of a flag that no command has, and that would hold a key itself; None if there is no such flag."""
    flag = next((found.group() for word in argv if (found := _KEY_FLAG.match(word))), None)
    if flag is None:
        return None
    return f"there is no {flag}, since everybody on this machine could read the key (ps shows it): set {VARIABLE}"
