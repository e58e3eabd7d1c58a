"""Policies on many machines, by Ray Serve. The one room that imports ray, which comes with the extra `ray`."""
