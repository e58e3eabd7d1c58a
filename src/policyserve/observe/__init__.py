"""What is told of a server at work: counters, and whatever else listens."""
