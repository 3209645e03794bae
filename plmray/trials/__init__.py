"""A candidate, a trial, its job and its result, and their ids."""
