"""From a sweep folder to a verdict people can read."""
