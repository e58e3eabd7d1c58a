"""What a person probably meant who typed a word that nothing is called."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(wanted: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that is most like the wanted one, whatever its case and whether it has `-` or `_`.

    cutoff: how alike they have to be, 0 … 1. None if no word is.
    """
    by_letters = {_letters(word): word for word in reversed(list(known))}  # of equal ones the first stays
    near = get_close_matches(_letters(wanted), by_letters, n=1, cutoff=cutoff)
    return by_letters[near[0]] if near else None


def nearest_path(wanted: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The same of keys such as `observation/image`: the only one that ends as the wanted one does is the nearest."""
    paths = list(known)
    alike = [path for path in paths if path.rpartition("/")[2] == wanted.rpartition("/")[2]]
    return alike[0] if len(alike) == 1 else nearest(wanted, paths, cutoff)


def _letters(word: str) -> str:
    return word.casefold().replace("_", "-")
