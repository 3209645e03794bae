"""What a sweep will do, before it does it: trials, packs, memory, operations."""
