"""Lines of the log for somebody who watches a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from policyserve.cli.colours import Colour, coloured
from policyserve.cli.layout import columns_of, with_short_paths, wrapped
from policyserve.core.log import ShortFormatter

_LONGEST_PATH = 40  # columns
_TIME = len("15:49:41 ")
_CONTINUED = "\n    "
_COLOURS: Mapping[str, Colour] = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


class TerminalFormatter(ShortFormatter):
    """Short lines with a coloured level, in which long paths lack their middle; what is longer goes on below."""

    def shown(self, level: str, message: str) -> str:
        first, separator, traceback = message.partition("\n")
        columns = columns_of(sys.stderr) - _TIME - len(level) - 2
        told = _CONTINUED.join(wrapped(with_short_paths(first, _LONGEST_PATH), columns))
        return f"{coloured(level, _COLOURS.get(level, 'dim'), sys.stderr)} {told}{separator}{traceback}"
