"""Another server's policy, served here: `remote:ws://host:port`."""
