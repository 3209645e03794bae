"""The files of a sweep folder: nothing else knows their names."""
