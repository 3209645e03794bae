"""What a person writes: sweep and space files, read strictly."""
