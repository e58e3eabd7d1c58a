"""Wall-X's policy."""
