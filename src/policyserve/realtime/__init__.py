"""Execute action chunks in real time: rows go on while the next chunk is asked for. The robot's half, NumPy alone."""
