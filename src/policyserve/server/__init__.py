"""The server: listens, lets clients in, and joins each connection to the engine."""
