"""Adapters: each makes policies of one kind of model, and imports its framework only to load one."""
