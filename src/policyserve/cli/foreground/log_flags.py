"""The flags of commands that serve which say what becomes of the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

from policyserve.core.settings import Settings
from policyserve.logs.start import LogSettings


@dataclass(frozen=True, kw_only=True)
class LogFlags(Settings):
    """How much of what happens is logged, how, and where to."""

    usual: ClassVar[tuple[str, ...]] = ()  # --help-all lists them

    log_format: Literal["text", "json"] = "text"
    """text for people, or json for programs: one object a line, whose keys docs/logs.md has."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Log what is at least this grave."""
    log_file: str | None = None
    """Append the log to this file instead of writing it to stderr."""

    def check(self) -> None:
        super().check()
        is_path = self.log_file is None or (self.log_file.strip() != "" and "\0" not in self.log_file)
        self.require("log_file", is_path, "a path")

    @property
    def settings(self) -> LogSettings:
        """What they say."""
        return LogSettings(getattr(logging, self.log_level.upper()), self.log_format == "json", self.log_file)

    @property
    def leaves_screen(self) -> bool:
        """Whether the terminal has room for what people read: where JSON goes to it, nothing else does."""
        return self.log_format == "text" or self.log_file is not None
