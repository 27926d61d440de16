"""Transaction kinds, one family a file."""
