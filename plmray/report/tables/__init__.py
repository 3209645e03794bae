"""Statistics for tables of runs from elsewhere."""
