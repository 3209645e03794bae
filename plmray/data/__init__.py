"""Proteins, targets and splits: reading, checking, and cutting into batches."""
