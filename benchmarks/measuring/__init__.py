"""What the programs of this folder share: policies that cost nothing, servers, turns, and the marks' rows."""
