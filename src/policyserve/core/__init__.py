"""Values, seams and what decides without I/O: NumPy and the standard library only."""
