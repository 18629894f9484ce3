"""Shared memory: segments, and tables in them as Arrow files."""
