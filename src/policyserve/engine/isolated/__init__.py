"""A policy in a process of its own: how that process is started, what crosses to it, and how its death is told."""
