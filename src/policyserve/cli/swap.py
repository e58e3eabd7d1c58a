"""`policyserve swap`: another policy takes the place of one that a server serves, while clients stay connected."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import h11
from tyro.conf import Positional, arg

from policyserve.cli.arguments import help_page, mistakes
from policyserve.cli.arguments.flags import flags_of
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.foreground.progress import ProgressLine, stage_line
from policyserve.cli.keys import VARIABLE, key_from_environment, key_from_file
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn, warn_of_keys
from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest
from policyserve.core.printable import one_line
from policyserve.doctor.pages import Page, fetch
from policyserve.doctor.server import Examined, as_websocket

PROG = "policyserve swap"
_ASK_EVERY_S = 0.2
_MOST_OF_TEXT = 1000


@dataclass(frozen=True)
class SwapFlags:
    """Have another policy take the place of one that a server serves, while clients stay connected.

    SOURCE and its flags are those of `policyserve serve`, and its files the server's. It ends with 0 once that policy
    answers, and with 1 if it does not take over; the one before goes on then. The server needs an admin's key, which is
    taken from the environment, POLICYSERVE_API_KEY, or from a file.
    """

    url: Annotated[Positional[str], arg(metavar="URL")] = field(repr=False)
    """ws://host:port, wss://host:port, ws+unix:///path/to/socket."""
    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Of the policy; `default` where it is the only one and has none."""
    source: Annotated[Positional[str], arg(metavar="SOURCE")] = ""
    """The policy that takes over, its flags behind it; left out with --back."""
    when: Literal["now", "next-session"] = "now"
    """now: it answers the next request of each session. next-session: running sessions end on the one before."""
    unload_first: bool = False
    """Let go of the policy before, then load: for models that do not fit twice. Requests wait meanwhile."""
    force: bool = False
    """Even if it has another spec: sessions are closed with 1012, and connect again."""
    back: bool = False
    """Return to the policy before."""
    load_timeout_s: float | None = None
    """How long the policy may take to load; None: as long as it likes."""
    api_key_file: Path | None = None
    """A file whose first line holds the key, `name admin: key`, as the server's own has it."""
    timeout_s: float = 5.0
    """For each answer of the server."""

    def __post_init__(self) -> None:
        """Raise ConfigError for flags that do not go together."""
        if self.back == bool(self.source):
            got = "both" if self.back else f"neither behind NAME, which is {self.name!r}"
            raise ConfigError(f"expected a SOURCE or --back, got {got}")
        if self.load_timeout_s is not None and not self.load_timeout_s > 0:
            raise ConfigError(f"load_timeout_s: expected more than 0 seconds, got {self.load_timeout_s:g}")


def main(argv: Sequence[str]) -> None:
    """Exchange a policy; exits with 1 where it does not take over, with 2 for wrong arguments."""
    own, policys = split_flags(argv)
    flags = parse(SwapFlags, PROG, own)
    try:
        key = key_from_environment() if flags.api_key_file is None else key_from_file(flags.api_key_file)
        server = Examined(as_websocket(flags.url), api_key=key, timeout_s=flags.timeout_s)
    except ConfigError as error:
        complain(str(error), ARGUMENT_ERROR)
    warn_of_keys(flags.url)
    try:
        print(exchange(server, flags, policys))
    except ConfigError as error:
        complain(f"{server.address.url.removesuffix('/')}: {error}", FAILURE)


def split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own words, and the flags of the policy, which are those that it has not itself.

    A flag of the policy's takes all words up to the next flag, so URL, NAME and SOURCE stand before those.
    """
    if help_page.wanted(argv) is not None:
        return list(argv), []
    words = list(argv)
    first = next((place for place, word in enumerate(words) if mistakes.is_flag(word)), len(words))
    own, policys = words[:first], list[str]()
    for one in mistakes.take_apart(words, flags_of(SwapFlags, None))[1]:
        (policys if one.flag is None else own).extend([one.word, *one.behind])
    return own, policys


def exchange(server: Examined, flags: SwapFlags, policys: Sequence[str]) -> str:
    """Ask for the policy, and wait for what comes of it; returns what to print, raises ConfigError."""
    path = f"/policies/{quote(flags.name, safe='')}"
    query: dict[str, str] = {"when": flags.when}
    query |= {"back": "true"} if flags.back else {"source": flags.source, "flags": json.dumps(list(policys))}
    query |= {name: "true" for name in ("unload_first", "force") if getattr(flags, name)}
    query |= {} if flags.load_timeout_s is None else {"timeout_s": f"{flags.load_timeout_s:g}"}
    page = _fetch(server, f"{path}?{urlencode(query)}", "PUT")
    if page.status == 401:
        got = "none" if server.authorization is None else "one that the server does not know"
        raise ConfigError(f"expected an admin's key in --api-key-file or {VARIABLE}, got {got} (HTTP 401)")
    if page.status == 404 and (unknown := _unknown(server, flags.name)):
        raise ConfigError(unknown)
    asked = _fields(page, 202)
    try:
        return _wait(server, path, asked)
    except KeyboardInterrupt:
        what = flags.source or "the policy before"
        warn(f"the server goes on loading {what}: GET {path} tells what comes of it, and --back undoes it")
        raise


def _wait(server: Examined, path: str, asked: dict[str, Any]) -> str:
    """What came of it, once the server says that; raises ConfigError."""
    line = ProgressLine()
    with line.shared():
        while True:
            told = _fields(_fetch(server, path), 200)
            last: dict[str, Any] = told.get("last") or {}
            if last.get("number") != asked.get("number"):
                raise ConfigError("somebody else has exchanged the policy since; its own answer is lost")
            if last.get("state") != "coming":
                line.show("")
                return _outcome(last, told)
            line.show(stage_line(one_line(str(told.get("coming")), _MOST_OF_TEXT)))
            time.sleep(_ASK_EVERY_S)


def _outcome(last: dict[str, Any], told: dict[str, Any]) -> str:
    if last.get("state") != "answers":
        error = one_line(str(last.get("error")), _MOST_OF_TEXT)
        raise ConfigError(f"{last.get('title')} does not take over, and {told.get('title')} goes on: {error}")
    staying = told.get("staying")
    rest = f"; {staying} sessions end on the one before" if staying else ""
    closed = f"; its sessions were closed, since its spec is another one ({'; '.join(last['changes'])})"
    title = one_line(str(last.get("title")), _MOST_OF_TEXT)
    return f"{title} answers, version {last.get('version')}{closed if last.get('changes') else rest}"


def _unknown(server: Examined, name: str) -> str:
    """What to say of a name that no policy of the server has; empty if one has it, or the server does not say."""
    served = _fetch(server, "/policies").fields.get("policies", ())
    names = [str(policy.get("name")) for policy in served if isinstance(policy, dict)]
    near = nearest(name, names)
    cure = f"did you mean {near}?" if near else f"there are {', '.join(names)}"
    return f"there is no policy {name!r}; {cure}" if names and name not in names else ""


def _fetch(server: Examined, path: str, method: str = "GET") -> Page:
    try:
        return fetch(server, path, method=method)
    except (OSError, h11.ProtocolError) as error:
        raise ConfigError(f"no answer: {one_line(str(error))}; `policyserve doctor URL` tells more") from None


def _fields(page: Page, status: int) -> dict[str, Any]:
    if page.status == status:
        return page.fields
    told = one_line(" ".join(page.body.split()), _MOST_OF_TEXT)
    raise ConfigError(f"{told or 'no reason is told'} (HTTP {page.status})")
