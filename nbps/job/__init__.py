"""Jobs and their workers: the public API, and what it starts."""
