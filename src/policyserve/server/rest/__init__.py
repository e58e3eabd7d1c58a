"""Robots and programs that ask by plain HTTP: `POST /act`."""

from __future__ import annotations
