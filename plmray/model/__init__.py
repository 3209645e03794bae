"""Backbone, adapter, head: assembled into one module with named, counted trainable parameters."""
