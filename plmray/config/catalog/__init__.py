"""Facts, one row each: encoders, families of encoders, tasks."""
