"""The soak's books: every request of every kind of client ends once, and what must not happen is counted too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .rig import Held

ENDS = ("answered", "refused", "closed")
WRONGS = ("lost", "crossed", "unexpected")
_NOTES_PER_KIND = 3
_READERS = 4  # threads of the server that read large bodies, each begun by the first one that finds none free
_MAX_RISE_KB = 32 * 1024  # of memory, over a run of any length: the allocator cannot give back every page


class Account(Counter[str]):
    """One kind of client: sent, and how each request ended. lost: no answer, and no end of the connection either."""

    @property
    def is_balanced(self) -> bool:
        """Whether each request ended exactly once, and as it may."""
        return self["sent"] == sum(self[end] for end in ENDS) and not any(self[wrong] for wrong in WRONGS)


class Ledger:
    """Accounts by kind of client, misdeeds by name, and notes on what went wrong."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.misdeeds: dict[str, Counter[str]] = {}
        self.refusals: Counter[str] = Counter()  # by code
        self.notes: list[str] = []

    def account(self, kind: str) -> Account:
        """The account of a kind of client."""
        return self.accounts.setdefault(kind, Account())

    def note(self, text: str) -> None:
        """Keep what went wrong, of each kind a few."""
        kind = text.partition(":")[0]
        if sum(kept.startswith(kind) for kept in self.notes) < _NOTES_PER_KIND:
            self.notes.append(text)

    def misdeed(self, name: str, complaint: str) -> None:
        """A misdeed's visit is over. complaint: what the server did instead of what it should; empty if it did that."""
        counts = self.misdeeds.setdefault(name, Counter())
        counts["visits"] += 1
        if complaint:
            counts["unexpected"] += 1
            self.note(f"{name}: {complaint}")

    def add(self, other: Ledger) -> None:
        """Add another one's books."""
        for kind, account in other.accounts.items():
            self.account(kind).update(account)
        self.refusals.update(other.refusals)
        for text in other.notes:
            self.note(text)

    @property
    def total(self) -> Account:
        """All accounts together."""
        total = Account()
        for account in self.accounts.values():
            total.update(account)
        return total

    @property
    def is_balanced(self) -> bool:
        """Whether every account is balanced and every misdeed ended as it should."""
        misdeeds_are_fine = not any(counts["unexpected"] for counts in self.misdeeds.values())
        return misdeeds_are_fine and all(account.is_balanced for account in self.accounts.values())

    def tables(self) -> str:
        """Both tables, in Markdown."""
        columns = ("sessions", "sent", *ENDS, *WRONGS)
        rows = [(kind, *(account[name] for name in columns)) for kind, account in sorted(self.accounts.items())]
        rows.append(("**all**", *(self.total[name] for name in columns)))
        deeds = [(name, counts["visits"], counts["unexpected"]) for name, counts in sorted(self.misdeeds.items())]
        codes = ", ".join(f"{code} {count}" for code, count in self.refusals.most_common())
        return "\n\n".join(
            (
                table(("clients", *columns), rows),
                f"Refused: {codes}.",
                table(("misdeed", "visits", "ended otherwise than it should"), deeds),
            )
        )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table whose columns stand under one another; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in [list(header), *cells]) for place in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(list(header)), rule, *map(line, cells)])


class Watch:
    """What the server held, seen again and again.

    spare_fds: those that may be more at the end, since a policy's process maps its memory in pieces, each with one.
    most_kb: that its memory may ever have risen by.
    """

    def __init__(self, spare_fds: int, most_kb: int) -> None:
        self._spare_fds = spare_fds
        self._most_kb = most_kb
        self.samples: list[tuple[float, Held]] = []  # at seconds of the soak, while clients are at work
        self.start: Held | None = None  # warm, and nobody connected
        self.end: Held | None = None

    def complaints(self) -> list[str]:
        """What is not flat: with nobody connected it must hold no more at the end than at the start."""
        if self.start is None or self.end is None:
            return ["the server was not looked at"]
        found = self._more(self.end)
        rise_kb = self.end.rss_kb - self.start.rss_kb
        if rise_kb > _MAX_RISE_KB:
            found.append(f"memory: {rise_kb} kB more are in use at the end than at the start, {_MAX_RISE_KB} may be")
        if self.peak_kb > self._most_kb:
            found.append(f"memory: it rose by {self.peak_kb} kB, {self._most_kb} may be")
        return found

    @property
    def peak_kb(self) -> int:
        """What its memory rose by, at its peak, above what it is with nobody there."""
        return 0 if self.start is None or self.end is None else self.end.peak_kb - self.start.rss_kb

    def _more(self, held: Held) -> list[str]:
        """Counts that are higher than at the start."""
        assert self.start is not None
        may_be_more = {"fds": self._spare_fds, "threads": _READERS}
        return [
            f"{name}: {before} at the start, {after} at the end"
            for name in ("fds", "threads", "tasks", "sessions", "strangers", "pending")
            if (after := getattr(held, name)) > (before := getattr(self.start, name)) + may_be_more.get(name, 0)
        ]

    def is_as_before(self, held: Held) -> bool:
        """Whether all that was made for the clients is gone."""
        return not held.stage and not self._more(held)

    def table(self, every_s: float) -> str:
        """The start, a sample every so often, and the end, in Markdown."""
        picked: list[tuple[str, Held]] = [("start, nobody there", self.start)] if self.start else []
        due = every_s
        for at, held in self.samples:
            if at >= due:
                picked.append((f"{due / 60:g} min" if due >= 60 else f"{due:g} s", held))
                due += every_s
        if self.end:
            picked.append(("end, nobody there", self.end))
        header = (
            "at", "RSS MB", "policy's process MB", "file descriptors", "threads", "tasks", "sessions",
        )  # fmt: skip
        return table(header, [(at, *_row(held)) for at, held in picked])


def _row(held: Held) -> tuple[object, ...]:
    memory = (f"{kb / 1024:.1f}" for kb in (held.rss_kb, held.children_kb))
    return (*memory, held.fds, held.threads, held.tasks, held.sessions)
