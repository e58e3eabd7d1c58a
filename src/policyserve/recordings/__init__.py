"""What went over the wire, in MCAP files, which robot people's tools open: written while it happens, read again."""
