"""Running sweeps: the driver and the order of its events."""
