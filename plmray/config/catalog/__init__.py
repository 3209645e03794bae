"""Facts, one row each: encoders, families, adapters, heads, engines, tasks, recipes."""
