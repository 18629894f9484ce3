"""Is what was promised of reads and additions kept: histories and their checker, and programs that make them."""
