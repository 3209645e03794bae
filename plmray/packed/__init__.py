"""The packed engine: many trials on one device, each to the numbers it would have alone."""
