"""Documents: as counts of words, from the files that people have, from text, and generated."""
