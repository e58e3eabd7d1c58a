"""The port of GR00T's clients, which speak ZeroMQ."""
