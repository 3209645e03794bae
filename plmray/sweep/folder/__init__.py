"""A sweep folder read and written: results, records, costs. The names of its files are in ``storage.layout``."""
