"""Where the lines of the log go, and how they look to programs."""
