"""RFC 6455's frames, for both ends of a connection. Pure: no socket, no clock."""
