"""Atomic files, locks and object stores."""
