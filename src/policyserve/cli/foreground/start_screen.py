"""What a person who starts a server wants to know about it, in the columns of his terminal."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO

from policyserve.cli.colours import Colour, coloured
from policyserve.cli.layout import at_home, columns_of, cut_in_the_middle, padded, width_of, wrapped
from policyserve.core.leaf_specs import ImageSpec
from policyserve.core.output import as_encoded
from policyserve.core.printable import one_line
from policyserve.core.roles import IMAGES, PROMPT, STATE, roles_told
from policyserve.core.version import VERSION
from policyserve.server.keys import VARIABLE

if TYPE_CHECKING:
    from policyserve.core.leaf_specs import LeafSpec
    from policyserve.core.spec import PolicySpec
    from policyserve.server.listener import Address

_INDENT = "  "
_LABEL = 8  # columns
_GAP = "  "
_CONTINUED = " \\"  # at the end of a command's line that is not its last
_LEAST_DOC = 24  # columns of a description beside what it describes; in fewer it stands below
_MOST_LEAVES = 40
_LIKE = "as above"
_ROLES = {IMAGES: "images/*", STATE: "state", PROMPT: "prompt"}
_UNWRAPPED = 10_000
# What a policy may tell in its greeting that a person wants to see; what the others mean is known to its clients.
_FACTS: Mapping[str, str] = {"checkpoint_step": "step {}", "backend": "{}", "device": "on {}", "predict_mode": "{}"}


@dataclass(frozen=True)
class Screen:
    """Lines for a stream: wrapped and coloured on a terminal; in a pipe each is one, and whole."""

    stream: TextIO

    @property
    def columns(self) -> int:
        """How long a line may be: one less than the terminal has, since some go to the next line after the last."""
        return columns_of(self.stream) - 1 if self.stream.isatty() else _UNWRAPPED

    def show(self, lines: Iterable[str]) -> None:
        """Print lines as one text, so that no other thread's come between; a progress line moves below them."""
        self.stream.write("".join(f"{line}\n" for line in lines))
        self.stream.flush()

    def heading(self, title: str, origin: str) -> list[str]:
        """What is served, and where it comes from."""
        return [*self.title(f"policyserve {VERSION} · {title}"), *self.row("from", self.path(origin))]

    def title(self, text: str) -> list[str]:
        """What all below is about."""
        bold = [self._painted(line, "bold") for line in wrapped(self.text(text), self.columns - len(_INDENT))]
        return [bold[0], *(_INDENT + line for line in bold[1:])]

    def description(
        self,
        spec: PolicySpec,
        address: Address,
        needs_key: bool = False,
        has_page: bool = False,
        records: str | None = None,
        mapped: Mapping[str, str] = MappingProxyType({}),
    ) -> list[str]:
        """What the policy takes and gives, and how to reach it.

        has_page: a browser shows what the server does. records: the directory where it records. mapped: what clients
        call a key, by what the policy calls it.
        """
        page = address.reachable.page if has_page else ""
        return [
            *self.facts(spec),
            *self._url(address, needs_key),
            *self.takes(spec),
            *self.gives(spec),
            *self._maps(spec, mapped),
            *self._client(spec, address.reachable.url, needs_key),
            *(self._command("watch", page) if page else []),
            *self._command("health", address.reachable.health),
            *([] if records is None else self.row("records", self.path(records))),
        ]

    def several(
        self,
        paths: Sequence[tuple[str, str]],
        client_path: str,
        address: Address,
        needs_key: bool = False,
        has_page: bool = False,
        records: str | None = None,
    ) -> list[str]:
        """Which policies there are, and how to reach them. paths: each with what is there, the default policy's first.

        client_path: one of those that answer. The others as description() has them.
        """
        page = address.reachable.page if has_page else ""
        url = address.reachable.url
        return [
            *self._url(address, needs_key),
            *self._labelled("paths", self._table([(path, told, "") for path, told in paths])),
            *self._command("client", f"python -m policyserve.client {url}{client_path}"),
            *(self.row("", f"with {VARIABLE} set to the key") if needs_key else []),
            *(self._command("watch", page) if page else []),
            *self._command("health", address.reachable.health),
            *([] if records is None else self.row("records", self.path(records))),
        ]

    def row(self, label: str, *texts: str) -> list[str]:
        """A label and texts beside it, each on lines of its own."""
        width = self.columns - len(_INDENT) - _LABEL
        return self._labelled(label, [line for text in texts for line in wrapped(self.text(text), width)])

    def path(self, text: str) -> str:
        """A text with a path in one line: the home directory is `~`, and what is too long lacks its middle."""
        return cut_in_the_middle(at_home(text), self.columns - len(_INDENT) - _LABEL) if os.sep in text else text

    def text(self, text: str) -> str:
        """A stranger's text on one line, in the characters that the stream has."""
        return as_encoded(one_line(" ".join(text.split()), _UNWRAPPED), self.stream.encoding or "utf-8")

    def facts(self, spec: PolicySpec) -> list[str]:
        """What was loaded and where it computes, as far as its greeting tells; nothing where it does not."""
        told = [text.format(spec.metadata[key]) for key, text in _FACTS.items() if spec.metadata.get(key) is not None]
        return self.row("loaded", ", ".join(told)) if told else []

    def _url(self, address: Address, needs_key: bool) -> list[str]:
        url, is_everywhere = address.reachable.url, address.host in ("0.0.0.0", "::")
        notes = (["all addresses"] if is_everywhere else []) + (["with a key"] if needs_key else [])
        notes += ["no key: see SECURITY.md"] if is_everywhere and not needs_key else []
        first, *others = self._labelled("url", self._table([(url, ", ".join(notes), "")]))
        return [first.replace(url, self._painted(url, "cyan"), 1), *others]

    def takes(self, spec: PolicySpec) -> list[str]:
        """What an observation has to hold, with layouts and units."""
        if not spec.leaves:
            return self.row("takes", "any observation (the policy declares no spec)")
        shown = list(spec.leaves.items())[:_MOST_LEAVES]
        more = len(spec.leaves) - len(shown)
        cells = [(path, _kind_of(leaf), leaf.doc) for path, leaf in shown]
        lines = [*self._table(cells), *([self.text(f"… and {more} more")] if more else [])]
        return self._labelled("takes", lines)

    def _maps(self, spec: PolicySpec, mapped: Mapping[str, str]) -> list[str]:
        """What clients of other families may call it: as the user says, and by what things are."""
        told = [f"{name} as {path}" for name, path in mapped.items()]
        roles = roles_told(spec)
        if IMAGES in roles or PROMPT in roles:  # of numbers alone nobody needs to be told
            said = {*mapped.values(), PROMPT, STATE}  # or called so by everybody
            free = ((role, [path for path in paths if path not in said]) for role, paths in roles.items())
            told += [f"{_ROLES[role]} as {', '.join(paths)}" for role, paths in free if paths]
        return self.row("maps", " · ".join(told)) if told else []

    def gives(self, spec: PolicySpec) -> list[str]:
        """What an answer holds."""
        steps = "" if spec.horizon is None else f", chunks of {spec.horizon}"
        if spec.action is None:
            return self.row("gives", f"any finite numbers{steps}")
        return self._labelled("gives", self._table([("", f"{spec.action}{steps}", spec.action.doc)]))

    def _client(self, spec: PolicySpec, url: str, needs_key: bool) -> list[str]:
        """How to ask for one action; where nobody knows what the policy takes, how a program asks."""
        key = self.row("", f"with {VARIABLE} set to the key") if needs_key else []
        if spec.leaves:
            return [*self._command("client", f"python -m policyserve.client {url}"), *key]
        asks = f"client = policyserve.Client('{url}')", "client.infer(obs) # what your policy takes"
        return [*self.row("client", *asks), *key]

    def _command(self, label: str, command: str) -> list[str]:
        """A command to paste, however many lines it takes."""
        width = self.columns - len(_INDENT) - _LABEL - len(_CONTINUED)
        *lines, last = textwrap.wrap(self.text(command), width, break_long_words=False, break_on_hyphens=False)
        return self._labelled(label, [*(line + _CONTINUED for line in lines), last])

    def _table(self, cells: list[tuple[str, str, str]]) -> Iterator[str]:
        """Lines of a name, what it is, and its description: in three columns, or below each other for want of room."""
        width = self.columns - len(_INDENT) - _LABEL
        told = ((self.text(name), self.text(kind), self.text(doc)) for name, kind, doc in cells)
        texts = list(_without_repeats(told))
        name_width = max(width_of(name) for name, _, _ in texts)
        kind_at = name_width + len(_GAP) if name_width else 0
        doc_at = kind_at + max(width_of(kind) for _, kind, _ in texts) + len(_GAP)
        if width - doc_at >= _LEAST_DOC:
            for name, kind, doc in texts:
                yield from _hanging(padded(padded(name, kind_at) + kind, doc_at), wrapped(doc, width - doc_at))
            return
        if width - kind_at < _LEAST_DOC:
            kind_at = len(_INDENT)  # below the name
        for name, kind, doc in texts:
            joined = f"{kind}{_GAP}{doc}"
            below = [part for text in (kind, doc) if text for part in wrapped(text, width - kind_at)]
            if below and width_of(joined) <= width - kind_at:
                below = [joined]
            if width_of(name) + len(_GAP) > kind_at > 0:
                yield from wrapped(name, width)
                name = ""
            yield from _hanging(padded(name, kind_at), below or ([""] if name else []))

    def _labelled(self, label: str, lines: Iterable[str]) -> list[str]:
        first = self._painted(padded(label, _LABEL), "dim")
        return [f"{_INDENT}{first if number == 0 else ' ' * _LABEL}{line}" for number, line in enumerate(lines)]

    def _painted(self, text: str, colour: Colour) -> str:
        return coloured(text, colour, self.stream)


def _without_repeats(cells: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """The cells, where one that is like the one before says so: three cameras are described once."""
    before = ("", "")
    for name, kind, doc in cells:
        is_like = (kind, doc) == before and len(kind + doc) > len(_LIKE)
        yield (name, _LIKE, "") if is_like else (name, kind, doc)
        before = (kind, doc)


def _hanging(first: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines behind a first text, and below each other."""
    for number, line in enumerate(lines):
        yield (first + line if number == 0 else " " * width_of(first) + line).rstrip()


def _kind_of(leaf: LeafSpec) -> str:
    # Of an image without what a subclass has to say to whoever sends a wrong one.
    kind = ImageSpec.__str__(leaf) if isinstance(leaf, ImageSpec) else str(leaf)
    return f"{kind} (optional)" if leaf.optional else kind
