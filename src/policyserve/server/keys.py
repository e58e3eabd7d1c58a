"""API keys: text in, the name of a caller's key out.

    robot-7: 0f4be1d2a9c34c1e8f7a     a key with a name, for the log
    ops admin: 91c07d5be24f6a833b1d   one that may also exchange the policy
    6f2c9e0b7d1a4c5e9b3d              a key without one: the log calls it "key 2", by its line

A key is kept as its SHA-256 digest and compared with every key in constant time, whichever it is.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from policyserve.core.errors import ConfigError
from policyserve.core.events import Event
from policyserve.core.log import Log

log = Log(__name__)

VARIABLE = "POLICYSERVE_API_KEY"
SHORTEST = 16  # characters: 64 bits, if it is random hex
_ADMIN = "admin"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RANDOM = re.compile(r"^(?=.*\d)[A-Za-z0-9_+=-]+$")  # what random keys look like, and few names of files
_KEY = re.compile(r"[!-+\--9;-~]+")  # printable ASCII; no space, comma or colon: they separate


class ApiKeys:
    """A set of named keys; an empty one lets everybody in. admins: the names of those that may exchange policies."""

    def __init__(self, digests: Mapping[str, bytes], admins: Collection[str] = ()) -> None:
        self._digests = dict(digests)
        self.admins = frozenset(admins)

    @property
    def names(self) -> frozenset[str]:
        """What the keys are called."""
        return frozenset(self._digests)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __repr__(self) -> str:
        return f"ApiKeys({', '.join(self._digests) or 'none'})"

    def __str__(self) -> str:
        """For people: `2 keys: robot-7, simulator`."""
        names, count = list(self._digests), len(self._digests)
        return f"{count} key{'' if count == 1 else 's'}: {', '.join(names)}" if names else "no keys"

    def plus(self, other: ApiKeys) -> ApiKeys:
        """The keys of both; raises ConfigError if two have one name."""
        twice = sorted(self._digests.keys() & other._digests.keys())
        if twice:
            raise ConfigError(f"two API keys are named {twice[0]!r}, one in {VARIABLE} and one in the file")
        return ApiKeys({**self._digests, **other._digests}, self.admins | other.admins)

    def name_of(self, authorization: str) -> str | None:
        """The name of the key in an `Authorization` header's value; None if it is none of ours.

        Takes `Api-Key KEY` (openpi's client), `Bearer KEY`, and `Basic` with the key as the password, which is what
        WebSocket clients make of ws://anything:KEY@host.
        """
        sent = sha256(_key_in(authorization)).digest()
        found = None
        for name, digest in self._digests.items():
            if compare_digest(digest, sent):
                found = name
        return found


def load(path: str | None, variable: str | None) -> ApiKeys:
    """The keys of a file and of the environment's POLICYSERVE_API_KEY; raises ConfigError, which quotes no key.

    path, variable: None where it is not given. An empty variable is refused: somebody meant to set a key.
    """
    if variable is not None and not variable.strip():
        raise ConfigError(f"{VARIABLE}: expected a key, got nothing; unset it to need none")
    keys = ApiKeys({}) if variable is None else read_variable(variable, VARIABLE)
    if path is None:
        return keys
    try:
        text = Path(path).read_text(encoding="utf-8")
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise ConfigError(f"api_key_file: {_shown(path)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"api_key_file: expected a text file, got {path}") from None  # its text may hold a key
    if mode & 0o077:
        told = "%s can be read by others on this machine: chmod 600 %s"
        log.warning(told, path, path, event=Event("access_warned"))
    return keys.plus(read_file(text, path))


def _shown(path: str) -> str:
    """A path that cannot be read, for an error's text; its name is left out if it may be a key, given for its file."""
    place = Path(path)
    may_be_key = not place.exists() and len(place.name) >= SHORTEST and _RANDOM.search(place.name) is not None
    return str(place.with_name("…")) if may_be_key else path


def read_file(text: str, path: str) -> ApiKeys:
    """Read `name: key`, `name admin: key` or `key` per line; empty lines, and lines that begin with #, are skipped.

    Raises ConfigError if a line is neither, or there is no key.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    keys = _read(((number, line) for number, line in lines if line and not line.startswith("#")), f"{path}, line")
    if not keys:
        raise ConfigError(f"{path}: expected one `name: key` per line, got no key")
    return keys


def read_variable(text: str, name: str) -> ApiKeys:
    """Read `name:key,name2 admin:key2`, or one key."""
    return _read(enumerate((part.strip() for part in text.split(",")), start=1), f"{name}, key")


def _read(entries: Iterable[tuple[int, str]], where: str) -> ApiKeys:
    """Never quotes an entry in an error: it may be a key."""
    digests: dict[str, bytes] = {}
    admins: set[str] = set()
    for number, entry in entries:
        name, colon, key = entry.partition(":")
        name, key = (name.strip(), key.strip()) if colon else (f"key {number}", entry)
        named, _, role = name.partition(" ") if colon else (name, "", "")
        if role.strip() == _ADMIN:
            name = named
            admins.add(name)
        if colon and not _NAME.fullmatch(name):
            expected = "a name of letters, digits and . _ - before the colon, and behind it nothing or the word admin"
            raise ConfigError(f"{where} {number}: expected {expected}")
        if not _KEY.fullmatch(key):
            raise ConfigError(f"{where} {number}: expected a key of ASCII characters without space, comma or colon")
        if len(key) < SHORTEST:
            what = f"expected a key of {SHORTEST} characters or more, got {len(key)}"
            raise ConfigError(f"{where} {number}: {what}; `openssl rand -hex 24` makes a good one")
        digest = sha256(key.encode()).digest()
        if name in digests or digest in digests.values():
            raise ConfigError(f"{where} {number}: the same {'name' if name in digests else 'key'} twice")
        digests[name] = digest
    return ApiKeys(digests, admins)


def _key_in(authorization: str) -> bytes:
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() in ("api-key", "bearer"):
        return rest.encode("utf-8", "replace")
    if scheme.lower() == "basic":
        try:
            return b64decode(rest, validate=True).partition(b":")[2]
        except ValueError:  # a stranger's bytes
            return b""
    return b""
