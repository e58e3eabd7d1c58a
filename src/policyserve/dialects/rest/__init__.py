"""What robots and programs send by HTTP to `/act`, and what they get: pure readers and writers of bodies."""

from __future__ import annotations
