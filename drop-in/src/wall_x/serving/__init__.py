"""Serving Wall-X models."""
