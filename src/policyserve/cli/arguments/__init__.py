"""A command's arguments: its flags, what a file and the environment set of them, help and mistakes."""
