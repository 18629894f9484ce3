"""Features and targets, from the files that people have."""
