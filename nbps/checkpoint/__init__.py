"""Checkpoints as files: written part by part, complete at once or not at all, read with checksums."""
