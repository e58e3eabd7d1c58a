"""Observers of a running server: its counters."""
