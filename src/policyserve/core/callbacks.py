"""What a callback is until somebody sets one. Pure."""

from __future__ import annotations


def do_nothing(*_facts: object) -> None:
    """Nobody is to be told."""
