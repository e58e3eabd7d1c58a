"""Lines of the log for somebody who watches a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from policyserve.cli.colours import Colour, coloured
from policyserve.cli.layout import with_short_paths
from policyserve.core.log import ShortFormatter

_LONGEST_PATH = 40  # columns
_COLOURS: Mapping[str, Colour] = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


class TerminalFormatter(ShortFormatter):
    """Short lines with a coloured level, in which long paths lack their middle."""

    def shown(self, level: str, message: str) -> str:
        first, separator, traceback = message.partition("\n")
        told = with_short_paths(first, _LONGEST_PATH) + separator + traceback
        return f"{coloured(level, _COLOURS.get(level, 'dim'), sys.stderr)} {told}"
