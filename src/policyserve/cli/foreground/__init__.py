"""What somebody sees who runs a server in a terminal."""
