"""Statistics on arrays of scores: numpy and scipy only."""
