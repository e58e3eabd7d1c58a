"""A policy on a small cluster, with clients of each founding dialect, and what may happen to it meanwhile."""
