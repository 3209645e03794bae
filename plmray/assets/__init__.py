"""A small pretrained ESM2 encoder that comes with the package, and how it was trained."""
